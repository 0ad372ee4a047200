"""`millpond search`."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer
from rich.table import Table

from service import exact_json
from service.cli import options
from service.cli.client import ask_once, collection_path
from service.cli.console import ON_SCREEN, Failure, emit_json, err, one_line, out, warn


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits wanted; fewer come where fewer match.")] = 10,
    condition: Annotated[
        str | None, typer.Option("--filter", help="""On metadata, as JSON: '{"year": {"$gte": 2020}}'.""")
    ] = None,
    by_document: Annotated[
        bool, typer.Option("--by-document", help="In a chunked collection: each document once, by its best span.")
    ] = False,
    truncate: options.Truncate = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer instead of a table.")] = False,
) -> None:
    """Find the documents of a collection that are nearest in meaning to a query."""
    route = collection_path(collection)
    group = "document" if by_document else None
    body = {"query": query, "k": k, "filter": _filter(condition), "group": group, "truncate": truncate}
    answer = ask_once(url, config, f"{route}/search", body, {"query": "the query"})
    if as_json:
        emit_json(answer)
        return
    for warning in answer.get("warnings", ()):
        warn(f"--filter: {warning}")
    if not answer["hits"]:
        err.print(f"No document of {collection!r} matches.")
        return
    table = Table(box=None, pad_edge=False, expand=ON_SCREEN)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1, min_width=20)
    for rank, hit in enumerate(answer["hits"], 1):
        text = hit.get("span", hit)["text"]
        table.add_row(str(rank), f"{hit['score']:.4f}", one_line(hit["id"], 512), one_line(text, 120))
    out.print(table)


def _filter(condition: str | None) -> orjson.Fragment | None:
    """Return the filter as it is sent, which is as it was written; raises `Failure` where it is no JSON object."""
    if condition is None:
        return None
    parsed, reason = None, ""
    try:
        parsed = exact_json.loads(condition.encode(errors="surrogateescape"))
    except orjson.JSONDecodeError as error:
        reason = f" ({error})"
    if not isinstance(parsed, dict):
        raise Failure(
            f'--filter {condition!r}: is not a JSON object{reason}. Write it as \'{{"year": {{"$gte": 2020}}}}\'.', 2
        )
    return orjson.Fragment(condition)
