"""The plane that vectors are projected to."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.deadline import answered_within
from service.embedding.projection import in_plane, project, turned
from service.errors import DeadlineExceeded

numbers = st.floats(-1e3, 1e3, width=32)
some = st.tuples(st.integers(1, 9), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=numbers)
)


def test_points_on_a_plane_keep_their_distances() -> None:
    corners = np.array([[0, 0], [4, 0], [4, 1], [0, 1]], np.float32)
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 2)))[0]
    plane = project((corners @ basis.T + 3).astype(np.float32))
    between = [np.linalg.norm(of[:, None] - of[None], axis=2) for of in (plane.points, corners)]
    np.testing.assert_allclose(between[0] * between[1].max() / between[0].max(), between[1], atol=1e-5)
    assert plane.explained == pytest.approx((16 / 17, 1 / 17), abs=1e-5)  # the variances are 4 and 1/4
    assert np.sqrt((plane.points**2).sum(1).mean()) == pytest.approx(1)


def test_the_components_are_those_of_the_covariance() -> None:
    vectors = np.random.default_rng(2).normal(size=(40, 9)).astype(np.float32) * np.arange(1, 10, dtype=np.float32)
    spread, axes = np.linalg.eigh(np.cov(vectors.T, bias=True))
    points = (vectors - vectors.mean(0)) @ axes[:, [-1, -2]]
    plane = project(vectors)
    scaled = points / np.sqrt((points**2).sum(1).mean())
    np.testing.assert_allclose(np.abs(plane.points), np.abs(scaled), atol=1e-4)
    np.testing.assert_allclose(plane.explained, spread[[-1, -2]] / spread.sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "flat"),
    [
        ([[1.0, 2.0]], 2),
        ([[0.1, 0.7]] * 5, 2),
        ([[1e6, 1.0]] * 3, 2),
        ([[1.0, 0.0], [2.0, 0.0], [5.0, 0.0]], 1),
        ([[1.0], [2.0]], 1),
    ],
)
def test_where_there_is_less_than_a_plane_the_rest_is_zeros(vectors: list[list[float]], flat: int) -> None:
    plane = project(np.array(vectors, np.float32))
    assert not plane.points[:, 2 - flat :].any() and not any(plane.explained[2 - flat :])


def test_what_float32_rounds_off_sets_nothing_apart() -> None:
    vectors = np.random.default_rng(3).normal(size=(1, 384)) + np.random.default_rng(4).normal(size=(9, 384)) * 1e-8
    assert not project(vectors.astype(np.float32)).points.any()


@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_vectors_of_any_size_have_the_same_places(scale: float) -> None:
    vectors = np.random.default_rng(5).normal(size=(20, 8)).astype(np.float32)
    plane, scaled = project(vectors), project(vectors * np.float32(scale))
    np.testing.assert_allclose(scaled.points, plane.points, atol=1e-5)


@pytest.mark.parametrize("shape", [(30, 400), (400, 30), (2, 50), (50, 2)])
def test_it_is_the_same_at_every_call_and_of_few_or_many(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    left, spread, _ = np.linalg.svd(vectors - vectors.mean(0, dtype=np.float64), full_matrices=False)
    places = left[:, :2] * spread[:2]
    plane = project(vectors)
    np.testing.assert_allclose(plane.explained, (spread**2 / (spread**2).sum())[:2], atol=1e-9)
    np.testing.assert_allclose(np.abs(plane.points), np.abs(places / np.sqrt((places**2).sum(1).mean())), atol=1e-6)
    assert np.array_equal(plane.points, project(vectors).points)


def test_who_has_no_more_time_does_not_wait_for_the_plane() -> None:
    vectors = np.random.default_rng(7).normal(size=(1_200, 1_200)).astype(np.float32)

    async def ask() -> None:
        with answered_within(0.02):
            await in_plane(vectors)

    with pytest.raises(DeadlineExceeded):
        asyncio.run(ask())


@given(some)
def test_any_vectors_have_places(vectors: np.ndarray) -> None:
    plane = project(vectors)
    assert plane.points.shape == (len(vectors), 2) and np.isfinite(plane.points).all()
    assert 0 <= plane.explained[1] <= plane.explained[0] and sum(plane.explained) <= 1 + 1e-9


@given(arrays(np.float64, (6, 2), elements=st.floats(-9, 9)), st.floats(0, 7), st.booleans())
def test_turning_finds_the_turn_and_the_mirror(points: np.ndarray, angle: float, mirrored: bool) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points @ turn * ([1, -1] if mirrored else [1, 1])
    np.testing.assert_allclose(turned(moved, points), points, atol=1e-6)


@given(arrays(np.float64, (2, 5, 2), elements=st.floats(-9, 9)))
def test_turning_brings_nothing_further_away(both: np.ndarray) -> None:
    points, to = both
    assert np.linalg.norm(turned(points, to) - to) <= np.linalg.norm(points - to) + 1e-6
