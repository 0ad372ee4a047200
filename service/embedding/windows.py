"""Texts longer than a model takes: which passes read them, and from which pass each token's state comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from service.arrays import Ids, Vectors

MOST_WINDOWED: Final = 65_536
"""Most tokens of a text that is read in windows: the states of all of them are in memory at once."""
SHARED: Final = 4
"""Neighbouring windows share at least one in this many of their tokens."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A text as passes of equal length, each with the special tokens and the prompt around its part of the body.

    Args:
        length: tokens of the whole text.
        front: tokens before the body: special ones and the prompt's.
        back: tokens after the body.
        size: tokens of the body in a pass.
        starts: index in the body at which each pass starts, ascending.
    """

    length: int
    front: int
    back: int
    size: int
    starts: tuple[int, ...]

    def cut(self, ids: Ids) -> list[Ids]:
        """Cut token ids (length,) into those of each pass (front + size + back,)."""
        if len(self.starts) == 1:
            return [ids]
        body = ids[self.front : self.length - self.back]
        frame = ids[: self.front], ids[self.length - self.back :]
        return [np.concatenate([frame[0], body[start : start + self.size], frame[1]]) for start in self.starts]

    def join(self, states: Sequence[Vectors]) -> Vectors:
        """Join the states of each pass, (at least its tokens, dim), to those of the text, (length, dim).

        A token's state comes from the pass in which it is farthest from the nearer end of the window, the earlier
        pass if two are equal. Windows have one size, so that is the pass whose middle is nearest.
        """
        if len(self.starts) == 1:
            return states[0][: self.length]
        joined = np.empty((self.length, states[0].shape[1]), np.float32)
        joined[: self.front] = states[0][: self.front]
        middles = [(start + self.size + after + 1) // 2 for start, after in pairwise(self.starts)]
        ends = [*middles, self.length - self.front - self.back]
        body, first = joined[self.front :], 0
        for start, end, state in zip(self.starts, ends, states, strict=True):
            body[first:end] = state[self.front :][first - start : end - start]
            first = end
        body[first:] = states[-1][self.front + self.size :][: self.back]
        return joined


def windows(length: int, limit: int, *, front: int, back: int) -> Windows:
    """Plan as few windows as share one in `SHARED` tokens with their neighbours, spread evenly.

    A pass has at most `limit` tokens, more than `front` and `back` together; the first `front` and the last `back`
    tokens of the text are in each. A text that fits has one.
    """
    body, room = length - front - back, limit - front - back
    if body <= room:
        return Windows(length, front, back, body, (0,))
    shared = min(-(-room // SHARED), room - 1)
    steps = -(-(body - room) // (room - shared))
    return Windows(length, front, back, room, tuple(step * (body - room) // steps for step in range(steps + 1)))
