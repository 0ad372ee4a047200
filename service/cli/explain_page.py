"""An explanation as a page to look at: one file of HTML that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from string import Template
from typing import Any, Final

_CELL: Final = 18
"""Size of a heat map's cell, in pixels."""
_VISIBLE: Final = 0.01
"""The part of the strongest entry below which a cell is left blank."""
_LONGEST_LABEL: Final = 16
_DARKEST: Final = 0.75
"""How opaque the shade of the strongest token is: words stay readable on it."""

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millpond: which token gave how much</title>
<style>
:root { color-scheme: light dark; --plus: 20, 110, 200; --minus: 205, 60, 40; --quiet: #767676; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font: 600 1rem ui-monospace, monospace; margin: 2rem 0 .3rem; }
h2 span { font-weight: 400; color: var(--quiet); }
p { margin: .3rem 0; }
p.note { color: var(--quiet); font-size: .85rem; }
p.text { line-height: 2.1; white-space: pre-wrap; overflow-wrap: anywhere; }
.text span { border-radius: .2rem; padding: .15rem 0; background: rgba(var(--plus), var(--by)); }
.text span.minus { background: rgba(var(--minus), var(--by)); }
.text span.special { font: .75rem ui-monospace, monospace; padding: .15rem .2rem; }
.map { overflow: auto; }
svg text { font: 11px ui-monospace, monospace; fill: currentColor; }
</style>
<h1>Which token gave how much</h1>
$body
</html>
""")


def page(text: str, other: str | None, answer: Any) -> str:
    """The page for what `/explain` answered about a text, or about two, then with `matrix`."""
    parts = [_note(f"Model {answer['model']}. Point at a token to see its figure.")]
    if answer["head"]:
        parts.append(_note(f"Explained is the pooled vector, before the model's head ({answer['head']})."))
    for explanation in answer["explanations"]:
        parts += _alone(text, explanation) if other is None else _together(text, other, explanation)
    return _PAGE.substitute(body="\n".join(parts))


def _alone(text: str, explanation: Any) -> Iterator[str]:
    tokens = explanation["tokens"]
    largest = max(token["share"] for token in tokens)
    yield f"<h2>{escape(explanation['pooling'])} <span>strongest: {largest:.1%} of the vector</span></h2>"
    yield _shaded(text, tokens, "share", largest)


def _together(text: str, other: str, explanation: Any) -> Iterator[str]:
    both = [*explanation["tokens"], *explanation["other"]]
    largest = max(abs(token["contribution"]) for token in both)
    similarity = f"similarity {explanation['similarity']:.4f}"
    if abs(explanation["served_similarity"] - explanation["similarity"]) > 1e-4:
        similarity += f", {explanation['served_similarity']:.4f} as served"
    yield f"<h2>{escape(explanation['pooling'])} <span>{similarity}; strongest: {largest:.4f} of it</span></h2>"
    yield _shaded(text, explanation["tokens"], "contribution", largest)
    yield _shaded(other, explanation["other"], "contribution", largest)
    if explanation["attribution"] != "exact":
        yield _note("Not a weighted sum: the vectors are divided among their tokens by share.")
    yield _heat_map(explanation)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _shaded(text: str, tokens: Sequence[Any], field: str, largest: float) -> str:
    """The text as it was written, each token's characters shaded; special tokens as words of their own."""
    pieces, at = [], 0
    for token in tokens:
        value = token[field]
        figure = f"{value:.2%}" if field == "share" else f"{value:+.4f}"
        if token["start"] is None or token["end"] <= at:  # several tokens may stand for one character
            shown, kind = f"{escape(token['token'])}", "special"
        else:
            start = max(token["start"], at)
            pieces.append(escape(text[at:start]))
            shown, kind, at = escape(text[start : token["end"]]), "", token["end"]
        kind = f"{kind} minus".strip() if value < 0 else kind
        by = _DARKEST * abs(value) / largest if largest else 0.0
        name = f' class="{kind}"' if kind else ""
        title = f"{escape(token['token'])} {figure}"
        pieces.append(f'<span{name} style="--by:{by:.3f}" title="{title}">{shown}</span>')
    return f'<p class="text">{"".join(pieces)}{escape(text[at:])}</p>'


def _heat_map(explanation: Any) -> str:
    """Rows are the text's tokens, columns the other's; blue adds to the similarity, red takes from it."""
    matrix, rows, columns = explanation["matrix"], explanation["tokens"], explanation["other"]
    largest = max(abs(value) for row in matrix for value in row) or 1.0
    margin = 8 * (2 + min(max(len(token["token"]) for token in [*rows, *columns]), _LONGEST_LABEL))
    width, height = margin + _CELL * len(columns), margin + _CELL * len(rows)
    drawn = [f'<svg width="{width + 4}" height="{height + 4}" role="img">']
    for i, token in enumerate(rows):
        drawn.append(f'<text x="{margin - 6}" y="{margin + _CELL * i + 13}" text-anchor="end">{_label(token)}</text>')
    for j, token in enumerate(columns):
        x, y = margin + _CELL * j + 13, margin - 6
        drawn.append(f'<text transform="translate({x} {y}) rotate(-90)">{_label(token)}</text>')
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if abs(value) >= _VISIBLE * largest:
                colour = f"rgba(var(--{'minus' if value < 0 else 'plus'}), {abs(value) / largest:.2f})"
                title = f"{escape(rows[i]['token'])} ~ {escape(columns[j]['token'])} {value:+.4f}"
                drawn.append(
                    f'<rect x="{margin + _CELL * j}" y="{margin + _CELL * i}" width="{_CELL - 1}" '
                    f'height="{_CELL - 1}" style="fill:{colour}"><title>{title}</title></rect>'
                )
    return f'<div class="map">{"".join(drawn)}</svg></div>' + _note(
        f"Rows: the text's tokens; columns: the other's. Blue adds to the similarity, red takes from it; "
        f"strongest: {largest:.4f}."
    )


def _label(token: Any) -> str:
    word = token["token"]
    return escape(word if len(word) <= _LONGEST_LABEL else f"{word[: _LONGEST_LABEL - 1]}…")
