"""An explanation as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from service.pages import render

_DARKEST: Final = 0.75
"""Opacity of the shade of the strongest token, at which text is still readable."""


class Piece(NamedTuple):
    """Characters of a text: those of a token, or those between tokens, which have no title."""

    shown: str
    title: str | None = None
    kind: str = ""
    shade: float = 0.0


def page(text: str, other: str | None, answer: Any) -> str:
    """Render what `/explain` answered about a text, or about two texts with `matrix`."""
    explanations = []
    for explanation in answer["explanations"]:
        sides, field = [(text, explanation["tokens"])], "share"
        if other is not None:
            sides, field = [*sides, (other, explanation["other"])], "contribution"
        largest = max(abs(token[field]) for _, tokens in sides for token in tokens)
        explanations.append((explanation, [list(_pieces(*side, field, largest)) for side in sides], largest))
    return render("explanation.html", answer=answer, explanations=explanations)


def _pieces(text: str, tokens: Sequence[Any], field: str, largest: float) -> Iterator[Piece]:
    """Cut a text at its tokens; special tokens are pieces of their own."""
    end = 0
    for token in tokens:
        value = token[field]
        title = f"{token['token']} {value:.2%}" if field == "share" else f"{token['token']} {value:+.4f}"
        kind = "minus" if value < 0 else ""
        shade = _DARKEST * abs(value) / largest if largest else 0.0
        if token["start"] is None or token["end"] <= end:  # several tokens may stand for one character
            yield Piece(token["token"], title, f"special {kind}".strip(), shade)
        else:
            start = max(token["start"], end)
            yield Piece(text[end:start])
            yield Piece(text[start : token["end"]], title, kind, shade)
            end = token["end"]
    yield Piece(text[end:])
