"""What may be spent, and when there is more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access import Budget


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_amount_can_be_spent_at_once_and_comes_back_evenly(clock: Clock) -> None:
    budget = Budget(3, 60, clock)
    for _ in range(3):
        assert budget.wait() == 0
        budget.spend(1)
    assert budget.wait() == pytest.approx(20)
    clock.now += 15
    assert budget.wait() == pytest.approx(5)
    clock.now += 5.01
    assert budget.wait() == 0


def test_a_debt_comes_back_first(clock: Clock) -> None:
    budget = Budget(100, 50, clock)
    budget.spend(300)
    assert budget.wait() == pytest.approx(201 / 2)
    clock.now += 101
    assert budget.wait() == 0


def test_no_more_comes_back_than_there_was(clock: Clock) -> None:
    budget = Budget(2, 1, clock)
    clock.now += 3600
    budget.spend(2)
    assert budget.wait() > 0


@given(
    amount=st.integers(1, 10**9),
    steps=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 10**5)), max_size=30),
)
def test_what_is_spent_stays_within_what_came_back(amount: int, steps: list[tuple[int, float]]) -> None:
    """Each step spends if it may, and up to the last one no debt is left when one may be made."""
    clock = Clock()
    budget, spent, last = Budget(amount, 60, clock), 0, 0
    for units, pause in steps:
        if budget.wait() == 0:
            spent, last = spent + units, units
            budget.spend(units)
        clock.now += pause
    assert spent - last <= amount + (clock.now - 1000) * amount / 60 + 1e-3 * amount
