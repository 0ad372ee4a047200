"""Limits of a rate: what may be spent in some time, and when there is more."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """An amount that can be spent at once and comes back evenly, all of it in a period (a token bucket).

    What is known only once it is spent, such as the tokens of a text, may be spent on credit: then nothing is left
    until the debt has come back too. So over a long time no more is spent than comes back.

    Args:
        amount: how much it is when full.
        seconds: the period in which it fills.
        clock: gives the time in seconds.
    """

    def __init__(self, amount: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.amount = amount
        self._seconds = seconds
        self._clock = clock
        self._left = float(amount)
        self._at = clock()

    def wait(self) -> float:
        """Return the seconds until a unit can be spent; 0 if it can now."""
        self._refill()
        return max(1.0 - self._left, 0.0) * self._seconds / self.amount

    def spend(self, units: int) -> None:
        """Take units out, on credit if there are not as many."""
        self._refill()
        self._left -= units

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self.amount / self._seconds, float(self.amount))
        self._at = now
