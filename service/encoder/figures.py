"""What the forward passes of an encoder were like so far."""

from __future__ import annotations

from collections import Counter

from service.observation import DURATIONS, POWERS_OF_TWO, Histogram


class PassFigures:
    """Counts what passes held and how long they took. The batcher's lock guards it; reading needs none."""

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        """How many texts of each number of tokens were queued."""
        self.rows = Histogram(POWERS_OF_TWO[:13])
        """Texts of a pass."""
        self.tokens = Histogram(POWERS_OF_TWO)
        """Tokens of a pass, padding included."""
        self.padding = 0
        """Tokens of all passes that were padding."""
        self.forward = Histogram(DURATIONS)
        """Seconds that the encoder took for the token states of a pass."""
        self.pooling = Histogram(DURATIONS)
        """Seconds from there to the vectors."""
        self.known_shapes = self.new_shapes = 0
        """Passes of a shape that was compiled before, and passes that had to compile theirs."""

    def add(self, rows: int, width: float, tokens: int, forward: float, pooling: float) -> None:
        """Count a pass of `rows` texts padded to `width` tokens, on average, which have `tokens` without padding."""
        self.rows.add(rows)
        padded = round(rows * width)
        self.tokens.add(padded)
        self.padding += padded - tokens
        self.forward.add(forward)
        self.pooling.add(pooling)
