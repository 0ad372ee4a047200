"""Small masked language models with random weights, saved as sparse encoders are, and their vectors elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from transformers import PreTrainedTokenizerFast

from service.checkpoint import find_folder
from tests.support.checkpoints import DIM, byte_pairs, wordpiece

_SIZES: dict[str, Any] = {
    **{"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32},
}


def bert_mlm(folder: Path, **config: Any) -> Path:
    """A plain folder; its logits are so that a text gives some tokens a weight, and others none."""
    tokenizer = wordpiece()
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0} | config
    return _save("Bert", _SIZES | sizes, tokenizer, folder)


def roberta_mlm(folder: Path) -> Path:
    sizes = {"vocab_size": 400, "max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1}
    return _save("Roberta", _SIZES | sizes, byte_pairs(), folder)


def distilbert_mlm(folder: Path) -> Path:
    tokenizer = wordpiece()
    sizes = {"vocab_size": len(tokenizer), "dim": DIM, "n_layers": 2, "n_heads": 3, "hidden_dim": 32}
    return _save("DistilBert", sizes | {"max_position_embeddings": 64}, tokenizer, folder)


def minilm_mlm(folder: Path) -> Path:
    """The encoder of all-MiniLM-L6-v2, and its vocabulary of 30,522 tokens, with a head of random weights."""
    encoder = find_folder("bundled/all-MiniLM-L6-v2", None)
    torch.manual_seed(13)
    model: Any = transformers.BertForMaskedLM.from_pretrained(encoder)
    with torch.no_grad():
        model.cls.predictions.transform.dense.weight.mul_(8)
        model.get_output_embeddings().bias.fill_(-1.5)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def sparse_encoder(
    plain: Path,
    folder: Path,
    strategy: Any = "max",
    activation: Any = "relu",
    *,
    legacy: bool = False,
    **settings: Any,
) -> Path:
    """`plain` with SPLADE's pooling, as the installed sentence-transformers saves it; `legacy` is its older way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = MLMTransformer(str(plain)) if legacy else Transformer(str(plain), transformer_task="fill-mask")
        modules = [first, SpladePooling(strategy, activation)]
        SparseEncoder(modules=modules, device="cpu", **settings).save(str(folder))
    return folder


def reference(folder: Path) -> SparseEncoder:
    """The same folder as sentence-transformers loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SparseEncoder(str(folder), device="cpu", local_files_only=True)


def rows(model: SparseEncoder, texts: list[str], **options: Any) -> NDArray[np.float32]:
    """Its vectors, (texts, vocabulary)."""
    found: NDArray[np.float32] = model.encode(texts, convert_to_sparse_tensor=False, **options).numpy()
    return found


def _save(kind: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    torch.manual_seed(12)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForMaskedLM")(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name.lower():
                weight.mul_(8)
        model.get_output_embeddings().bias.fill_(-1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
