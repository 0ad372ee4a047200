"""How the documents of a collection are cut into spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from service.embedding.spans import BySentence, ByTokens, Cut, Given
from service.errors import InvalidInput, Place
from service.store import Document

if TYPE_CHECKING:
    from service.embedding.embedder import Mode


@dataclass(frozen=True, slots=True)
class Chunking:
    """Cuts each document into runs of tokens, into sentences, or into the spans that come with it.

    Args:
        by: what a span is.
        mode: `late` pools each span from one pass over the whole document, `early` embeds it by itself.
        tokens: tokens of a run.
        overlap: tokens that a run shares with the one before.

    """

    by: Literal["tokens", "sentence", "given"]
    mode: Mode
    tokens: int | None = None
    overlap: int = 0

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Chunking:
        """Return the chunking that `to_json` described; raises `TypeError` for another key or a missing one."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, without the options that do not apply."""
        run = {"tokens": self.tokens, "overlap": self.overlap} if self.by == "tokens" else {}
        return {"by": self.by, **run, "mode": self.mode}

    def cut(self, document: Document, where: Place) -> Cut:
        """Return what cuts a document; raises `InvalidInput` where it lacks the spans that it must come with."""
        if self.by == "sentence":
            return BySentence()
        if self.tokens is not None:
            return ByTokens(self.tokens, self.overlap)
        if document.spans is None:
            raise InvalidInput(f"{where} has no spans, and the collection's chunking is by given ones.", where=where)
        return Given(document.spans)
