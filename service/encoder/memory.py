"""The memory that token states take: of a forward pass, and of states that requests hold on to."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from service.deadline import in_time
from service.errors import DeadlineExceeded

_FLOAT: Final = 4
_HIDDEN: Final = ("hidden_size", "dim", "d_model", "n_embd")
_INTERMEDIATE: Final = ("intermediate_size", "hidden_dim", "d_ff", "n_inner")
_HEADS: Final = ("num_attention_heads", "n_heads", "num_heads", "n_head")
# Values that a layer holds at its peak, found by measuring passes of up to 8,192 tokens on PyTorch and OpenVINO.
_STATES_AT_ONCE: Final = 10
_INTERMEDIATES_AT_ONCE: Final = 2
_SCORES_AT_ONCE: Final = 2
_COPIES: Final = 2
"""Of the states of each layer that a pass carries: as it computes them, and as they are given on or mixed."""
_EXTRA_BYTES: Final = 2**27
"""Most bytes of a pass beside those of layers, unless `_ENOUGH` tokens take more."""
_ENOUGH: Final = 128
"""Tokens that keep a core busy while it reads the weights of a large vocabulary."""


@dataclass(frozen=True)
class Footprint:
    """An estimate of the memory that a forward pass takes beside the weights.

    Args:
        token: bytes for each token.
        pair: bytes for each pair of tokens of a row.
        state: bytes of a token's state.
        extra: bytes among those of a token that are not held by layers, such as its logits.
    """

    token: int
    pair: int
    state: int = 0
    extra: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any], *, fused_attention: bool, numbers: int = 0) -> Self:
        """Estimate it from an encoder's config.json.

        Args:
            config: the config; sizes that it does not give are assumed to be the usual ones.
            fused_attention: whether attention is computed in blocks. Otherwise the scores of all heads are in memory.
            numbers: what a token has in memory beside what layers do, such as its logits.
        """
        hidden = _first(config, _HIDDEN, 768)
        intermediate = _first(config, _INTERMEDIATE, 4 * hidden)
        heads = _first(config, _HEADS, max(hidden // 64, 1))
        mask = _FLOAT
        return cls(
            token=_FLOAT * (_STATES_AT_ONCE * hidden + _INTERMEDIATES_AT_ONCE * intermediate + numbers),
            pair=mask if fused_attention else mask + _FLOAT * _SCORES_AT_ONCE * heads,
            state=_FLOAT * hidden,
            extra=_FLOAT * numbers,
        )

    def most_tokens(self, asked: int) -> int:
        """Return how many tokens a pass had best have at most, where so many are asked for.

        They are fewer where each has much in memory beside what layers hold: larger passes would not be faster, and
        those of all streams would take gigabytes.
        """
        return min(asked, max(_EXTRA_BYTES // self.extra, _ENOUGH)) if self.extra else asked

    def of_pass(self, rows: int, width: int) -> int:
        """Return the bytes of a pass over `rows` texts of `width` tokens."""
        return rows * width * (self.token + width * self.pair)

    def of_layers(self, rows: int, width: int, layers: int) -> int:
        """Return the bytes that such a pass takes further where it carries the states of so many layers."""
        return rows * width * _COPIES * layers * self.state


class StateBudget:
    """Memory for token states that requests hold on to; who does not fit waits for those before.

    Args:
        limit: bytes. A request for more is served alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes in use."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._lock = threading.Lock()  # coroutines of several event loops may share an encoder

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes within the `async with` block, in the order in which they are asked for.

        Raises:
            DeadlineExceeded: there was no room for them in time.
        """
        turn = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append((size, turn))
            self._admit()
        try:
            await in_time(turn)
        except (asyncio.CancelledError, DeadlineExceeded):
            with self._lock:
                admitted = (size, turn) not in self._waiting
                if not admitted:
                    self._waiting.remove((size, turn))
                    self._admit()  # those behind it may fit
            if admitted:
                self._release(size)
            raise
        try:
            yield
        finally:
            self._release(size)

    def _release(self, size: int) -> None:
        with self._lock:
            self.held -= size
            self._admit()

    def _admit(self) -> None:
        while self._waiting and (not self.held or self.held + self._waiting[0][0] <= self.limit):
            size, turn = self._waiting.popleft()
            self.held += size
            turn.get_loop().call_soon_threadsafe(_let_in, turn)


def _let_in(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # it was cancelled
        turn.set_result(None)


def _first(config: Mapping[str, Any], names: tuple[str, ...], otherwise: int) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), otherwise)
