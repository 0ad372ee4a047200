"""What a runtime is loaded from: a checkpoint, its tokenizer and weights, and the cache of what is made of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from service.checkpoint import Checkpoint, sha256
from service.encoder.anatomy import Anatomy, examine
from service.encoder.artifacts import Artifacts
from service.encoder.merging import merge
from service.encoder.modules import WEIGHTS, TokenLayers
from service.encoder.probe import check_module
from service.encoder.progress import Progress, no_progress
from service.encoder.table import read_tokenizer, sizes
from service.encoder.task import TOKEN_STATES, Task
from service.encoder.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer
from service.errors import CheckpointError, brief

_ARTIFACT_FORMAT: Final = 1
"""Version of the cached artifacts; increase it when the same checkpoint and versions give other ones."""
_TOKENIZER_FORMAT: Final = 4
"""Version of the cached tokenizers; increase it likewise."""
_ANATOMY_FORMAT: Final = 2
"""Version of the cached sizes; increase it likewise."""
# Keys of config.json that say how it was saved, or how it is run, but change no state.
_SILENT_KEYS: Final = {
    *("_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"),
    *("gradient_checkpointing", "architectures", "_attn_implementation_autoset"),
}
_SILENT_OF_ADAPTERS: Final = {
    *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type", "lora_dropout"),
}

_NUMBER: Final = re.compile(r"\d+")
_HASHING: Final = {"reformer"}
"""Model types whose states are a matter of chance."""


class Source:
    """An encoder whose weights are not loaded yet.

    Args:
        checkpoint: the model folder.
        cache: where what is made of it is kept; the user's own cache where None.
        trust_remote_code: run modelling code that the checkpoint brings.
        parse_special_tokens: read special tokens that a text spells out as such, and not as plain characters.
        progress: receives the steps of a quantisation.
        task: what the encoder is to compute.

    Raises:
        CheckpointError: its tokenizer cannot be used, its config describes no encoder, or the two do not agree.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        cache: Path | None = None,
        *,
        trust_remote_code: bool = False,
        parse_special_tokens: bool = False,
        progress: Progress = no_progress,
        task: Task = TOKEN_STATES,
    ) -> None:
        self.checkpoint = checkpoint
        self.artifacts = Artifacts(cache)
        self.trust_remote_code = trust_remote_code
        self.progress = progress
        self.tokenizer = Tokenizer(self._tokenizer(), parse_special_tokens=parse_special_tokens)
        self.task = task.reading(self.tokenizer)
        self.anatomy = self._anatomy()
        rows, last = self.anatomy.vocabulary, self.tokenizer.vocab_size - 1
        if rows is not None and last >= rows:
            (token,) = self.tokenizer.tokens(np.array([last]))
            raise CheckpointError(
                f"{checkpoint.transformer}: its tokenizer has ids up to {last} ({token!r}), and its embedding table "
                f"has {rows} rows, so a text could ask for a row that is not there. One of the two is of another "
                "model; or tokens were added without `model.resize_token_embeddings(len(tokenizer))`, and training."
            )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over the weights and the part of config.json that changes a state."""
        return fingerprint(self.checkpoint, self.checkpoint.weight_files())

    def module(self, dtype: torch.dtype = torch.float32) -> Any:
        """Load the weights; see `load_module`."""
        return load_module(self.checkpoint, dtype, self.task, trust_remote_code=self.trust_remote_code)

    def artifact(self, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the folder of what `build(folder)` makes of this encoder, from the cache where it is there.

        Args:
            kind: what it is, such as `graph`.
            key: what it is made from beside the encoder.
            build: fills the folder.
        """
        of_encoder = {
            "format": _ARTIFACT_FORMAT,
            "encoder": self.fingerprint,
            **self.task.key,
            **self._code(),
        }
        return self.artifacts.get(kind, {**of_encoder, **key}, build)

    def _tokenizer(self) -> TokenizerSpec:
        """Return the tokenizer as transformers resolves it, from the cache: transformers takes seconds to import."""
        if self.checkpoint.table is not None:  # read in no time
            return read_tokenizer(self.checkpoint, self.checkpoint.table)
        key = {
            "files": self.checkpoint.sums("*.json", "*.txt", "*.model", "*.py"),
            "lower_case": self.checkpoint.lower_case,
            "trust_remote_code": self.trust_remote_code,
            "format": _TOKENIZER_FORMAT,
            "versions": {name: version(name) for name in ("tokenizers", "transformers")},
        }

        def build(folder: Path) -> None:
            spec = load_tokenizer(self.checkpoint, trust_remote_code=self.trust_remote_code)
            (folder / "tokenizer.json").write_text(spec.to_json(), encoding="utf-8")

        folder = self.artifacts.get("tokenizer", key, build)
        return TokenizerSpec.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))

    def _code(self) -> dict[str, Any]:
        """Return what computes an encoder, for keys of the cache."""
        return {
            "code": self.checkpoint.sums("*.py") if self.trust_remote_code else {},
            "versions": {name: version(name) for name in ("torch", "transformers")},
        }

    def _anatomy(self) -> Anatomy:
        """Return the encoder's sizes, from the cache: building one without its weights takes transformers as well."""
        if self.checkpoint.table is not None:
            return sizes(self.checkpoint.table)
        key = {
            "format": _ANATOMY_FORMAT,
            "config": dict(self.checkpoint.config),
            **self.task.key,
            **self._code(),
        }

        def build(folder: Path) -> None:
            anatomy = examine(self.checkpoint, self.task, trust_remote_code=self.trust_remote_code)
            (folder / "anatomy.json").write_text(json.dumps(asdict(anatomy)))

        folder = self.artifacts.get("anatomy", key, build)
        anatomy = Anatomy(**json.loads((folder / "anatomy.json").read_text()))
        layers = self.checkpoint.of_tokens
        return replace(anatomy, dim=TokenLayers(layers, anatomy.dim).output_dim) if layers else anatomy


def fingerprint(checkpoint: Checkpoint, files: Iterable[Path]) -> str:
    """Return sixteen hex digits over files of weights and the part of config.json that changes a state.

    What changes states besides, an adapter's config and the layers of tokens, is part of them.
    """
    config = {key: value for key, value in checkpoint.config.items() if key not in _SILENT_KEYS}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in files:
        digest.update(f"{path.name} {sha256(path)}".encode())
    if checkpoint.adapter is not None:
        of_adapter = {
            key: value for key, value in checkpoint.adapter.config.items() if key not in _SILENT_OF_ADAPTERS
        }
        digest.update(json.dumps(of_adapter, sort_keys=True).encode())
    for module in checkpoint.of_tokens:
        digest.update(f"{json.dumps(module.config, sort_keys=True)} {sha256(module.folder / WEIGHTS)}".encode())
    return digest.hexdigest()[:16]


def load_module(
    checkpoint: Checkpoint, dtype: torch.dtype, task: Task = TOKEN_STATES, *, trust_remote_code: bool = False
) -> Any:
    """Load an encoder as a transformers module in evaluation mode, its weights from safetensors only.

    Raises:
        CheckpointError: weights are damaged, some that results depend on are missing, or it is no text encoder.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    unwanted = are_progress_bars_disabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights, which is soon done
    if not unwanted:
        enable_progress_bars()  # of downloads, which the line above turns off as well
    kind = task.auto_class(checkpoint, trust_remote_code=trust_remote_code)
    if checkpoint.config.get("model_type") in _HASHING:
        raise CheckpointError(
            f"{checkpoint.encoder}: the attention of {checkpoint.config['model_type']} hashes by chance, in "
            "buckets whose number the first text decides, so a text has no one vector. Choose another model."
        )
    try:
        model, report = kind.from_pretrained(
            checkpoint.encoder,
            dtype=dtype if checkpoint.adapter is None else torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds for a damaged folder
        raise CheckpointError(f"{checkpoint.encoder}: its weights cannot be loaded ({brief(error, 400)}).") from None
    missing = sorted(key for key in report["missing_keys"] if task.needs(key))
    if report["mismatched_keys"]:
        key, found, wanted = min(report["mismatched_keys"])
        raise CheckpointError(
            f"{checkpoint.encoder}: {key!r} is {_size(found)} in the weights and {_size(wanted)} by config.json, "
            "so the two are not of one model. Get both anew."
        )
    if missing:
        raise CheckpointError(
            f"{checkpoint.encoder}: {len(missing)} weights are missing or of another shape, such as "
            f"{missing[0]!r}; the encoder would run on random numbers. Get the folder anew."
        )
    _check_used(checkpoint, model.state_dict(), report["unexpected_keys"], model.base_model_prefix)
    if checkpoint.adapter is not None:
        model = merge(model, checkpoint.adapter).to(dtype)  # in float32, so that it is rounded only once
    if hasattr(model, "set_attention_type"):
        # BigBird's sparse attention depends on a batch's width, and one short text turns it into full attention for
        # good. Only with full attention from the start does a text have one vector.
        model.set_attention_type("original_full")
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # keys and values are never asked for again
    if checkpoint.of_tokens:
        TokenLayers(checkpoint.of_tokens).put_on(model)
    module = model.eval().requires_grad_(False)
    check_module(module, checkpoint, task)
    return module


def _check_used(checkpoint: Checkpoint, loaded: Iterable[str], unexpected: Iterable[str], prefix: str) -> None:
    """Refuse weights of which a layer is left out: its weights are named as those of another one but for a number."""
    kinds: dict[str, list[str]] = {}
    for key in loaded:
        kinds.setdefault(_NUMBER.sub("#", key), []).append(key)
    left_out = {
        key: kinds[kind]
        for name in unexpected
        if (kind := _NUMBER.sub("#", key := name.removeprefix(f"{prefix}."))) in kinds and key not in kinds[kind]
    }
    if left_out:
        key = min(left_out)
        used = left_out[key]
        alike = sum(_NUMBER.sub("#", other) == _NUMBER.sub("#", key) for other in left_out)
        name = checkpoint.weight_files()[0].name
        raise CheckpointError(
            f"{checkpoint.encoder}: {name} holds {key!r}, and the encoder of config.json has no such layer: it "
            f"has {len(used)} of {len(used) + alike}, so the two are not of one model. Correct config.json, or get "
            "both anew."
        )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
