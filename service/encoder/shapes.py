"""The shapes of forward passes: as texts come, of equal lengths, or from a fixed set where each shape is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

_STEPS: Final = ((32, 4), (128, 8), (256, 16))
"""Up to each width, the step between widths; beyond the last one, eight steps from one power of two to the next."""


class Shapes(Protocol):
    """Which shapes (rows, time) passes may have."""

    def width(self, length: int) -> int:
        """Return the width of a pass whose longest row has `length` tokens, at least `length`."""

    def rows(self, count: int) -> int:
        """Return how many of `count` rows make up a pass: 1 or more, the others wait for the next one."""

    def shortest(self, length: int) -> int:
        """Return the fewest tokens of a row that may share a pass with one of `length` tokens."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield every shape (rows, time), the narrow ones first; none if there is no fixed set."""

    def __len__(self) -> int:
        """Return how many shapes there are in the set."""


class AnyShape:
    """Passes are as wide and high as their rows; for runtimes to which a new shape costs nothing."""

    def width(self, length: int) -> int:
        """Return `length`."""
        return length

    def rows(self, count: int) -> int:
        """Return `count`."""
        return count

    def shortest(self, length: int) -> int:
        """Return 1."""
        return 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(())

    def __len__(self) -> int:
        return 0


class EqualLengths(AnyShape):
    """Rows of a pass have the same length, so that nothing is padded; for encoders that read padding."""

    def shortest(self, length: int) -> int:
        """Return `length`."""
        return length


class ShapeBuckets:
    """Passes have one of a fixed set of shapes, so that a runtime compiles a bounded number of them.

    Widths are rounded up, to multiples of 4 where texts are short and in wider steps beyond, up to an eighth of the
    length. Rows are rounded down, to powers of two and those halfway between: running the surplus in the next pass
    costs less than padding whole rows.

    Args:
        max_batch_tokens: most tokens of one pass with several rows, padding included.
        longest: most tokens of a row.
    """

    def __init__(self, max_batch_tokens: int, longest: int) -> None:
        self._longest = longest
        self._all = tuple(self._up_to(max_batch_tokens))

    def width(self, length: int) -> int:
        """Return the next width from `length` up."""
        return max(min(_rounded_up(length), self._longest), length)

    def rows(self, count: int) -> int:
        """Return the next number of rows from `count` down: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
        power = 1 << (count.bit_length() - 1)
        return power + power // 2 if count >= power + power // 2 else power

    def shortest(self, length: int) -> int:
        """Return 1."""
        return 1

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._all)

    def _up_to(self, max_batch_tokens: int) -> Iterator[tuple[int, int]]:
        width = 0
        while width < self._longest:
            width = self.width(width + 1)
            rows, most = 0, max(max_batch_tokens // width, 1)
            while rows < most:
                rows = next(count for count in range(rows + 1, 2 * rows + 2) if self.rows(count) == count)
                if rows <= most:
                    yield rows, width


def _rounded_up(length: int) -> int:
    step = next((step for most, step in _STEPS if length <= most), None)
    if step is None:
        step = 1 << ((length - 1).bit_length() - 4)
    return -(-length // step) * step
