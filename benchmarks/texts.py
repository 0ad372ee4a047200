"""The texts that are measured with, STS-B's sentence pairs and Cranfield's abstracts, and vectors of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pooling.tasks import Retrieval, Similarity, read, similarity
from tests.support import datasets

Vectors = NDArray[np.float32]
"""(texts, dim)."""


def sts(count: int | None = None, split: str = "test") -> Similarity:
    """Read the first pairs of a split of STS-B, or all of them; scores are from 0 to 5."""
    data = read(datasets.folder() / "stsb-en", split)
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


def fresh_sentences(seed: int = 0) -> Iterator[str]:
    """Give sentences like STS-B's, none twice."""
    return fresh(sentences(sts(split="train")), seed)


def fresh_abstracts(seed: int = 0) -> Iterator[str]:
    """Give documents like Cranfield's, none twice."""
    return fresh(list(cranfield().documents.values()), seed)


def fresh(texts: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Give texts in random order, then passages of their words without end, as long as they are; none comes twice.

    Batches of them keep coming in new shapes, as they do from users; texts that repeat also repeat shapes.
    """
    draw = random.Random(seed)
    seen = dict.fromkeys(texts)
    yield from draw.sample(list(seen), len(seen))
    lengths, words = [len(text.split()) for text in seen], [word for text in seen for word in text.split()]
    while True:
        text = passage(words, draw.choice(lengths), draw)
        if text not in seen:
            seen[text] = None
            yield text


def passage(words: Sequence[str], length: int, draw: random.Random) -> str:
    """Cut so many words out of many, at a random place."""
    start = draw.randrange(len(words) - length + 1)
    return " ".join(words[start : start + length])


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
