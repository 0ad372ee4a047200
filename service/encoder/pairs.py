"""Texts and pairs of texts to token ids, as a sequence classifier reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from service.encoder.tokenizer import BRIEF, FEW, Side, TokenizedText, Tokenizer

Item = str | tuple[str, str]
"""A text, or two that are read together."""


class PairTokenizer:
    """Tokenizes texts and pairs by the tokenizer's templates of both. Safe to call from several threads.

    Args:
        tokenizer: what reads each text.
        limit: tokens beyond which a text or a pair is cut, special tokens among them.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self.limit = limit
        self._whole = tokenizer.reader()
        self._cut = {side: tokenizer.reader() for side in _SIDES}
        for side, backend in self._cut.items():
            backend.enable_truncation(limit, strategy="longest_first", direction=side)

    def encode(self, items: Sequence[Item]) -> list[TokenizedText]:
        """Tokenize whole items."""
        return [TokenizedText(ids, len(ids)) for ids in _ids(self._whole, items)]

    def cut(self, items: Sequence[Item], whole: Sequence[TokenizedText], side: Side) -> list[TokenizedText]:
        """Return items cut to the limit at one side of a text; of a pair, the longer text is cut first.

        Args:
            items: the items.
            whole: what `encode` gave for them.
            side: where a text is cut.
        """
        found = list(whole)
        long = [at for at, text in enumerate(whole) if len(text.ids) > self.limit]
        for at, ids in zip(long, _ids(self._cut[side], [items[at] for at in long]), strict=True):
            found[at] = TokenizedText(ids, whole[at].full_length)
        return found


def characters(item: Item) -> int:
    """Return how many characters an item has."""
    return len(item) if isinstance(item, str) else len(item[0]) + len(item[1])


_SIDES: Final[tuple[Side, ...]] = ("left", "right")


def _ids(backend: Any, items: Sequence[Item]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    # `encode` holds the interpreter's lock, so a long text would stop every other thread meanwhile.
    if len(items) <= FEW and sum(map(characters, items)) <= BRIEF:
        encodings = [backend.encode(item) if isinstance(item, str) else backend.encode(*item) for item in items]
    else:
        encodings = backend.encode_batch_fast(list(items))
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
