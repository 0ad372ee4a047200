"""Which examples of a test are of the slow tier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_fast(cases: Iterable[Any]) -> list[Any]:
    """Return cases for `parametrize`, of which the first alone runs with the fast tests."""
    first, *others = cases
    slow = pytest.mark.slow
    return [first, *(pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=slow) for each in others)]
