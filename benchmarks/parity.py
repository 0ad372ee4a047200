"""Vectors, weights and scores beside those of sentence-transformers, for each kind of checkpoint that it saves.

Each checkpoint is saved by the installed sentence-transformers, with the weights of all-MiniLM-L6-v2, and random ones
where it has none. Both sides read the same folder and the same sentences of STS-B.
"""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.encoder import DIM, minilm
from benchmarks.report import Report, progress
from benchmarks.texts import sentences, sts
from service.config import Config
from service.embedding.models import Models
from service.embedding.sparse import SparseModels
from service.errors import Place
from service.ranking import Rerankers
from tests.support import checkpoints, classifiers, splade

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import (
        Normalize,
        Pooling,
        StaticEmbedding,
        Transformer,
        WeightedLayerPooling,
    )

_DEPTH: Final = 6
_FEW: Final = 50
"""Texts of which sparse vectors are made at a time: a model that was not trained to be sparse gives dense ones."""
_WIDE: Final = {"config_kwargs": {"output_hidden_states": True}}

Pairs = Sequence[tuple[str, str]]
Rows = NDArray[np.float32]


class Compared(NamedTuple):
    """What both sides give for the same texts, (texts, dim)."""

    ours: Rows
    theirs: Rows


def run(report: Report) -> None:
    """Compare, and fill the report."""
    data = sts(report.size(500, 20))
    pairs: Pairs = list(zip(data.first, data.second, strict=True))
    texts = sentences(data)[: len(pairs)]
    kinds: dict[str, Callable[[Path, str], Compared]] = {
        **{name: partial(_embedded, save, texts) for name, save in EMBEDDED.items()},
        **{f"CrossEncoder, labels: {labels}": partial(_scored, labels, pairs) for labels in (1, 3)},
        **{f"SparseEncoder, {strategy}": partial(_weighed, strategy, texts) for strategy in ("max", "sum")},
    }
    rows: dict[str, dict[str, float]] = {}
    for name, compare in kinds.items():
        for backend in ("openvino", "torch"):
            progress(f"parity: {name}, {backend}")
            with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as place:
                found = compare(Path(place), backend)
            apart, largest = float(np.abs(found.ours - found.theirs).max()), float(np.abs(found.theirs).max())
            row = rows.setdefault(name, {"largest value": largest})
            row[f"difference, {backend}"] = apart
            row[f"of the largest, {backend}"] = apart / largest
    report.say(
        f"{len(texts)} sentences of STS-B, or pairs of them, in fp32: the largest difference of any number to "
        "sentence-transformers on PyTorch, and the same as a share of the largest number. Static models have a "
        "runtime of their own, whatever is asked for."
    )
    report.table("", rows, "{:.2g}".format)
    report.keep(rows=rows)


def _pooled(mode: Any) -> list[Any]:
    return [Transformer(minilm()), Pooling(DIM, mode)]


def _layers() -> list[Any]:
    weights = torch.nn.Parameter(torch.tensor([0.5, 0.25, 1.0, 2.0]))
    layers = WeightedLayerPooling(DIM, num_hidden_layers=_DEPTH, layer_start=3, layer_weights=weights)
    return [Transformer(minilm(), **_WIDE), layers, Pooling(DIM, "mean"), Normalize()]


def _dense_over_tokens() -> list[Any]:
    torch.manual_seed(1)
    dense = Dense(DIM, 128, module_input_name="token_embeddings", module_output_name="token_embeddings")
    return [Transformer(minilm()), dense, Pooling(128, "mean")]


def _static() -> list[Any]:
    table = Transformer(minilm()).auto_model.get_input_embeddings().weight.detach().numpy()
    tokenizer: Any = AutoTokenizer.from_pretrained(minilm())
    return [StaticEmbedding(tokenizer, embedding_weights=table)]


def _saved(modules: Callable[[], list[Any]], folder: Path, **settings: Any) -> None:
    SentenceTransformer(modules=modules(), device="cpu", **settings).save(str(folder))


def _adapted(folder: Path) -> None:
    from peft import LoraConfig

    torch.manual_seed(2)
    model = SentenceTransformer(modules=_pooled("mean"), device="cpu")
    model.add_adapter(LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.05)
    model.save(str(folder))


_POOLED: Final = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

EMBEDDED: Final[Mapping[str, Callable[[Path], None]]] = {
    **{f"Transformer, Pooling: {mode}": partial(_saved, partial(_pooled, mode)) for mode in _POOLED},
    "Normalize": partial(_saved, lambda: [*_pooled("mean"), Normalize()]),
    "declared dimensions (Matryoshka)": partial(_saved, partial(_pooled, "mean"), truncate_dim=128),
    "WeightedLayerPooling": partial(_saved, _layers),
    "Dense over tokens": partial(_saved, _dense_over_tokens),
    "PEFT adapter": _adapted,
    "StaticEmbedding": partial(_saved, _static),
}
"""What saves each kind of checkpoint that embeds."""


def _embedded(save: Callable[[Path], None], texts: Sequence[str], folder: Path, backend: str) -> Compared:
    save(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = checkpoints.reference(folder).encode(list(texts))
    models = Models(_config("models", folder, backend))
    try:
        return Compared(models.get().encode(texts), theirs)
    finally:
        models.close()


def _scored(labels: int, pairs: Pairs, folder: Path, backend: str) -> Compared:
    saved = classifier(folder / "plain", folder / "saved", labels)
    identity: Any = torch.nn.Identity()
    theirs = classifiers.reference(saved).predict(list(pairs), activation_fn=identity).reshape(len(pairs), labels)
    rerankers = Rerankers(_config("rerankers", saved, backend))
    try:
        return Compared(asyncio.run(rerankers.get().predict(pairs, where=partial(Place, "pairs"))).logits, theirs)
    finally:
        rerankers.close()


def classifier(plain: Path, saved: Path, labels: int) -> Path:
    """Save a cross-encoder with a random head, as sentence-transformers does."""
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=labels)
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    model.save_pretrained(plain)
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(plain)
    return classifiers.cross_encoder(plain, saved)


def sparse_encoder(folder: Path, strategy: str) -> Path:
    """Save a sparse encoder with a random head, as sentence-transformers does."""
    return splade.sparse_encoder(splade.minilm_mlm(folder / "masked"), folder / "weights", strategy)


def _weighed(strategy: str, texts: Sequence[str], folder: Path, backend: str) -> Compared:
    saved = sparse_encoder(folder, strategy)
    theirs = splade.rows(splade.reference(saved), list(texts))
    models = SparseModels(_config("sparse", saved, backend))
    try:
        ours = np.zeros_like(theirs)
        for start in range(0, len(texts), _FEW):
            found = asyncio.run(models.get().embed(texts[start : start + _FEW])).vectors
            for place, vector in enumerate(found, start):
                ours[place, vector.indices] = vector.values
        return Compared(ours, theirs)
    finally:
        models.close()


def _config(section: str, folder: Path, backend: str) -> Config:
    runtime = {"precision": "fp32", "backend": backend}
    values: dict[str, Any] = {"models": {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}}, "runtime": runtime}
    return Config.model_validate(values | {section: {"default": {"encoder": str(folder)}}})
