"""A pooler as a module of sentence-transformers, which this file alone imports.

`modules.json` names the class `millpond.LearnedPooling`. As the class is not part of sentence-transformers, loading
it requires consent: `SentenceTransformer(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pooling import Pooler, load, masks


class LearnedPooling(Module):
    """Pooling of token embeddings by any strategy of this library.

    Args:
        pooler: the fitted strategy.
        include_prompt: whether the tokens of a prompt are pooled too.
    """

    __module__ = "millpond"  # what sentence-transformers writes to `modules.json` when it saves a model
    config_keys = ["include_prompt"]  # noqa: RUF012  # declared like this by the base class

    def __init__(self, pooler: Pooler, include_prompt: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pooler = pooler
        self.include_prompt = include_prompt

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding` (texts, output_dim), in the dtype of `token_embeddings`."""
        tokens: Tensor = features["token_embeddings"]
        if "cu_seq_lens_q" in features:  # texts concatenated without padding
            lengths = features["cu_seq_lens_q"].diff()
            padded = pad_sequence(list(torch.split(tokens[0], lengths.tolist())), batch_first=True)
            mask = masks.from_lengths(lengths)
        else:
            padded, mask = tokens, features["attention_mask"]
        if not self.include_prompt and "prompt_length" in features:
            mask = masks.exclude_prefix(mask, features["prompt_length"])
        features["sentence_embedding"] = self.pooler(padded, mask).to(tokens.dtype)
        return features

    def get_embedding_dimension(self) -> int:
        """Return the size of the vector."""
        return self.pooler.output_dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the files of the pooler and `config.json`."""
        self.pooler.save(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load what `save` wrote, from a folder or the hub."""
        source: dict[str, Any] = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        folder = cls.load_dir_path(model_name_or_path, **source)
        if folder is None:
            raise FileNotFoundError(f"{model_name_or_path}: has no folder {subfolder!r}")
        return cls(load(folder), **cls.load_config(model_name_or_path, **source))
