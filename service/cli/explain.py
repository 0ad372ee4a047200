"""`millpond explain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Column, Table
from rich.text import Text

from service.cli import options
from service.cli.client import Service, ask_once
from service.cli.console import ON_SCREEN, Failure, emit_json, err, one_line, out

_WIDEST_BAR: Final = 40
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LONGEST_TOKEN: Final = 24


def explain(
    text: Annotated[str, typer.Argument(help="The text to explain.")],
    other: Annotated[str | None, typer.Argument(help="Another text: explain what makes the two similar.")] = None,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    model: options.Model = None,
    poolings: Annotated[
        list[str] | None,
        typer.Option("--pooling", "-p", help="A pooling to explain, once for each; the model's own unless given."),
    ] = None,
    layers: options.Layers = None,
    truncate: options.Truncate = False,
    prompt_name: options.PromptName = None,
    input_type: options.InputType = None,
    other_input_type: Annotated[
        str | None, typer.Option(help="The same of the other text by itself: of a query and a document, say.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer instead of bars.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page too, with the tokens shaded and, of two texts, a heat map.")
    ] = None,
) -> None:
    """Show which tokens of a text make its vector, or with a second text what makes the two similar."""
    asked: dict[str, Any] = {
        "other": other,
        "model": model,
        "pooling": poolings or None,
        "layers": options.parse_layers(layers),
        "prompt_name": prompt_name,
        "input_type": input_type,
        "other_input_type": other_input_type,
    }
    body = {key: value for key, value in asked.items() if value is not None}
    body |= {"text": text, "truncate": truncate, "matrix": html is not None and other is not None}
    names = {"text": "the text", "other": "the other text"}
    answer = ask_once(Service(url, config, api_key), "/explain", body, names, stores=False)
    if html is not None:
        _write(html, text, other, answer)
    if as_json:
        emit_json(answer)
        return
    explanations = answer["explanations"]
    if answer["head"]:
        err.print(f"The pooled vector is explained, before the model's head ({answer['head']}).")
    if other is None:
        out.print(_bars("share", explanations, "tokens", "share"))
        return
    for side, heading in (("tokens", "text"), ("other", "other")):
        out.print(_bars(heading, explanations, side, "contribution"))
        out.print()
    out.print(_pairs(explanations, served=answer["head"] is not None))


def _write(path: Path, text: str, other: str | None, answer: Any) -> None:
    from service.cli.explain_page import page

    try:
        path.write_text(page(text, other, answer), encoding="utf-8")
    except OSError as error:
        raise Failure(f"--html {path}: {error.strerror}. Name a file that can be written.", 2) from None


def _bars(heading: str, explanations: Sequence[Any], side: str, field: str) -> Table:
    """Make a row for each token and a bar for each strategy, all bars to the same scale."""
    headers = (one_line(explanation["pooling"], 60) for explanation in explanations)
    bars = (Column(header, no_wrap=ON_SCREEN) for header in headers)
    table = Table(Column(heading, no_wrap=True), *bars, box=None, pad_edge=False)
    columns = [explanation[side] for explanation in explanations]
    scale = max(abs(token[field]) for column in columns for token in column) or 1.0
    room = (out.width - _LONGEST_TOKEN) // len(columns) - 10 if ON_SCREEN else _WIDEST_BAR
    width = min(max(room, 4), _WIDEST_BAR)
    for tokens in zip(*columns, strict=True):
        cells = (_bar(token[field], scale, width, signed=field == "contribution") for token in tokens)
        table.add_row(_word(tokens[0]), *cells)
    return table


def _bar(value: float, scale: float, width: int, *, signed: bool) -> Text:
    eighths = round(abs(value) / scale * width * 8)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    number = f"{value:+7.4f}" if signed else f"{value:6.1%}"
    return Text.assemble(number, " ", (bar, "red" if value < 0 else "cyan"))


def _pairs(explanations: Sequence[Any], *, served: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("pooling", no_wrap=True)
    table.add_column("similarity", justify="right", no_wrap=True)
    if served:
        table.add_column("as served", justify="right", no_wrap=True)
    table.add_column("contributed most by")
    for explanation in explanations:
        strongest = ", ".join(
            f"{one_line(pair['token'], _LONGEST_TOKEN)} ~ {one_line(pair['other_token'], _LONGEST_TOKEN)} "
            f"{pair['contribution']:+.4f}"
            for pair in explanation["pairs"][:5]
        )
        by_share = "" if explanation["attribution"] == "exact" else " (divided by share)"
        scores = [f"{explanation[key]:.4f}" for key in ("similarity", *(["served_similarity"] if served else []))]
        table.add_row(one_line(explanation["pooling"], 60), *scores, strongest + by_share)
    return table


def _word(token: Any) -> Text:
    """Style a token; one that stands for no character of the text is dim."""
    return Text(one_line(token["token"], _LONGEST_TOKEN) or "·", style="dim" if token["start"] is None else "")
