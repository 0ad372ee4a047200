"""How documents are cut into spans, as a collection or an evaluation describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

from service.embedding.chunkers import Chunker, build, refuse_foreign

Mode = Literal["late", "early"]
"""`late` pools each span from one pass over its whole text, `early` embeds each span as a text of its own."""

GIVEN: Final = "given"
"""What a chunking is called that takes the spans that come with each document."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut into spans, each with a vector.

    Args:
        chunker: what cuts them; None if each document comes with its spans.
        mode: how a span is embedded.
    """

    chunker: Chunker | None
    mode: Mode

    @property
    def by(self) -> str:
        """The chunker's name, or `given`."""
        return GIVEN if self.chunker is None else self.chunker.name

    def to_json(self) -> dict[str, Any]:
        """Return `{"by": name, **options, "mode": mode}`."""
        options = {} if self.chunker is None else asdict(self.chunker)
        return {"by": self.by, **options, "mode": self.mode}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises `InvalidInput` if it describes no chunker."""
        options = dict(stored)
        name, mode = options.pop("by"), options.pop("mode")
        if name != GIVEN:
            return cls(build(name, options), mode)
        refuse_foreign(name, options)
        return cls(None, mode)
