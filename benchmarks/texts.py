"""The texts that are measured with, STS-B's sentence pairs and Cranfield's abstracts, and vectors of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pooling.tasks import Retrieval, Similarity, read, similarity
from tests.support import datasets

Vectors = NDArray[np.float32]
"""(texts, dim)."""


def sts(count: int | None = None) -> Similarity:
    """Read the first pairs of STS-B's test split, or all of them; scores are from 0 to 5."""
    data = read(datasets.folder() / "stsb-en")
    assert isinstance(data, Similarity)
    return data.select(range(data.size)[:count])


def sentences(pairs: Similarity) -> list[str]:
    """Give the sentences of each pair one after the other."""
    return [sentence for pair in zip(pairs.first, pairs.second, strict=True) for sentence in pair]


def cranfield() -> Retrieval:
    """Read Cranfield; a document is its title and its text."""
    data = read(datasets.folder() / "cranfield")
    assert isinstance(data, Retrieval)
    return data


def copy_head(source: Path, target: Path, names: Sequence[str], lines: int) -> Path:
    """Copy the first lines of files to another folder, which is returned."""
    target.mkdir()
    for name in names:
        with (source / name).open(encoding="utf-8") as file:
            (target / name).write_text("".join(islice(file, lines)), encoding="utf-8")
    return target


def unit(vectors: Vectors) -> Vectors:
    """Divide each row by its length."""
    found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def spearman(vectors: Vectors, pairs: Similarity) -> float:
    """Correlate the cosines of a pair's sentences, which stand one after the other, with its score; x 100."""
    cosines = similarity.cosines(vectors[::2], vectors[1::2])
    return 100 * float(similarity.spearman(cosines, pairs.scores))
