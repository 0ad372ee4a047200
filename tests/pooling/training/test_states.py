"""Token states on disk."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pooling import build
from pooling.training import States, StatesError, Writer

from .conftest import write


def texts(lengths, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, dim)).astype(np.float32) for length in lengths]


def test_a_batch_is_padded_in_the_order_asked_for(tmp_path):
    first, second = texts([3, 1]), texts([5], seed=1)
    states = States.open([write(tmp_path / "a", first), write(tmp_path / "b", second)])
    assert (len(states), states.dim, states.lengths.tolist()) == (3, 4, [3, 1, 5])
    tokens, mask = states.batch(np.array([1, 2, 0, 1]))
    assert mask.sum(1).tolist() == [1, 5, 3, 1]
    for row, wanted in zip(tokens, [first[1], second[0], first[0], first[1]], strict=True):
        assert np.array_equal(row[: len(wanted)], wanted)
        assert not row[len(wanted) :].any()


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), data=st.data())
def test_any_selection_pools_as_the_texts_do(tmp_path_factory, lengths, data):
    given = texts(lengths)
    states = States.open([write(tmp_path_factory.mktemp("states") / "a", given)])
    places = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20)))
    pooled = states.select(places).pooled(build("mean", 4))
    assert np.allclose(pooled, [given[place].mean(0) for place in places], atol=1e-6)


def test_float16_is_half_the_size_and_nearly_the_same(tmp_path):
    given = texts([4, 6])
    wide, narrow = (write(tmp_path / dtype, given, dtype) for dtype in ("float32", "float16"))
    assert (wide / "states.bin").stat().st_size == 10 * 4 * 4 == 2 * (narrow / "states.bin").stat().st_size
    left, right = (States.open([folder]).batch(np.array([0, 1]))[0] for folder in (wide, narrow))
    assert left.dtype == right.dtype == torch.float32
    assert torch.allclose(left, right, rtol=1e-3, atol=1e-6) and not torch.equal(left, right)


@pytest.mark.parametrize(
    ("value", "message"), [(70_000, "70000 is more than float16 holds; keep float32"), (np.nan, "is not finite")]
)
def test_what_float16_cannot_hold_is_refused(tmp_path, value, message):
    with pytest.raises(StatesError, match=message), Writer(tmp_path, 2, "float16") as writer:
        writer.add(np.array([[1, value]], dtype=np.float32))
    assert not (tmp_path / "offsets.npy").exists()


def test_only_what_is_read_takes_memory(tmp_path):
    with Writer(tmp_path, 256, "float16") as writer:
        for _ in range(500):
            writer.add(np.ones((64, 256), dtype=np.float32))
    on_disk = (tmp_path / "states.bin").stat().st_size
    tracemalloc.start()
    states = States.open([tmp_path])
    states.batch(np.arange(8))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert on_disk == 500 * 64 * 256 * 2
    assert most < on_disk / 20
