"""Windows over texts that are longer than a model takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.embedding.windows import SHARED, windows


def passes(plan):
    """Each pass over a text whose ids are 0, 1, 2, ..."""
    return [ids.tolist() for ids in plan.cut(np.arange(plan.length))]


def test_a_text_that_fits_is_one_pass():
    plan = windows(10, 10, front=2, back=1)
    assert passes(plan) == [list(range(10))]
    states = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)  # padded
    assert np.array_equal(plan.join([states]), states[:10])


def test_a_text_that_does_not():
    assert passes(windows(13, 10, front=1, back=1)) == [[*range(9), 12], [0, *range(4, 12), 12]]
    assert passes(windows(9, 5, front=1, back=0)) == [[0, 1, 2, 3, 4], [0, 3, 4, 5, 6], [0, 5, 6, 7, 8]]
    assert passes(windows(8, 5, front=1, back=0)) == [[0, 1, 2, 3, 4], [0, 4, 5, 6, 7]]


@pytest.mark.parametrize(("length", "limit"), [(9, 3), (50, 3), (6, 4)])
def test_room_for_a_token_or_two(length, limit):
    plan = windows(length, limit, front=1, back=1)
    assert all(len(ids) == limit for ids in plan.cut(np.arange(length)))


@given(length=st.integers(1, 300), limit=st.integers(1, 60), front=st.integers(0, 5), back=st.integers(0, 3))
def test_each_state_comes_from_the_pass_with_most_context(length, limit, front, back):
    assume(length >= front + back and limit > front + back)
    plan = windows(length, limit, front=front, back=back)
    body, room = length - front - back, limit - front - back
    cut = plan.cut(np.arange(length))
    assert all(len(ids) <= limit for ids in cut)
    if body > room:
        assert plan.starts[0] == 0 and plan.starts[-1] == body - room and plan.size == room
        for start, after in zip(plan.starts, plan.starts[1:], strict=False):
            assert start < after and (start + room - after >= room // SHARED or room == 1)
    # A state says which token it is of, and in which pass.
    states = [np.stack([ids, np.full(len(ids), place)], 1).astype(np.float32) for place, ids in enumerate(cut)]
    joined = plan.join([np.concatenate([state, np.full((3, 2), -1, np.float32)]) for state in states])
    assert np.array_equal(joined[:, 0], np.arange(length))

    def context(token, start):
        return min(token - start, start + plan.size - 1 - token)

    for token in range(body):
        chosen = plan.starts[int(joined[front + token, 1])]
        reading = [start for start in plan.starts if start <= token < start + plan.size]
        assert chosen in reading
        assert context(token, chosen) == max(context(token, start) for start in reading)
        assert chosen == min(s for s in reading if context(token, s) == context(token, chosen))
    assert (joined[:front, 1] == 0).all() and (joined[length - back :, 1] == len(cut) - 1).all()
