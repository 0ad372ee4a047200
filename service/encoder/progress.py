"""How long steps, such as quantising, report where they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, how much of it is done, and how much there is."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
