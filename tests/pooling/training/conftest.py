"""Token states in which one token of each text carries its meaning and the others drown it."""

import numpy as np
import pytest

from pooling.tasks import PositivePairs, Retrieval, Similarity
from pooling.training import Split, States, Writer

DIM = 8
TOPICS = 6


def write(folder, texts, dtype="float32"):
    """The states of some texts, as arrays (tokens, dim)."""
    folder.mkdir()
    with Writer(folder, texts[0].shape[1], dtype) as writer:
        for states in texts:
            writer.add(states)
    return folder


def about(topic, rng):
    """The states of a text: one token says its topic, marked by the last dimension; the others are loud noise."""
    states = rng.normal(size=(int(rng.integers(3, 7)), DIM)).astype(np.float32) * 2
    states[:, -1] = 0
    states[rng.integers(len(states))] = 3 * np.eye(DIM)[topic] + 3 * np.eye(DIM)[-1]
    return states


def similar_pairs(count, seed, folder):
    """Scored pairs: 1 for the same topic, else 0."""
    rng = np.random.default_rng(seed)
    left = rng.integers(TOPICS, size=count)
    right = np.where(rng.random(count) < 0.5, left, rng.integers(TOPICS, size=count))
    names = [f"text {number}" for number in range(2 * count)]
    pairs = Similarity(names[:count], names[count:], (left == right).astype(float))
    assert pairs.parts[0].texts == names
    states = [about(topic, rng) for topic in (*left, *right)]
    return Split(pairs, States.open([write(folder, states)]))


@pytest.fixture(scope="session")
def similarity(tmp_path_factory):
    """Train and dev."""
    folder = tmp_path_factory.mktemp("similarity")
    return similar_pairs(300, 1, folder / "train"), similar_pairs(150, 2, folder / "dev")


@pytest.fixture
def positives():
    """Pairs of texts that belong together."""

    def make(count):
        return PositivePairs(tuple(f"anchor {n}" for n in range(count)), tuple(f"positive {n}" for n in range(count)))

    return make


@pytest.fixture
def retrieval():
    """Two queries, four documents; d4 is relevant to none."""
    documents = {"d1": "one", "d2": "two", "d3": "three", "d4": "four"}
    relevance = {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1, "d2": 1}}
    return Retrieval(documents, {"q1": "first?", "q2": "second?", "q3": "unjudged?"}, relevance)
