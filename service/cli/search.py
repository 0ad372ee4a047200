"""`millpond search`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.table import Table

from service.cli import options
from service.cli.client import Service, ask_once, collection_path
from service.cli.console import ON_SCREEN, Failure, emit_json, err, one_line, out


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits wanted; fewer come where fewer match.")] = 10,
    condition: options.Filter = None,
    by_document: Annotated[
        bool, typer.Option("--by-document", help="In a chunked collection: each document once, by its best span.")
    ] = False,
    mode: Annotated[
        Literal["dense", "keyword", "hybrid"],
        typer.Option(help="Search by vectors, by words (BM25), or by both (reciprocal rank fusion)."),
    ] = "dense",
    weights: Annotated[
        str | None,
        typer.Option(help="Of the two rankings of a hybrid search, as dense=1,keyword=0.5; else 1 each."),
    ] = None,
    diversity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Choose hits that differ: 0 hardly, 1 by that alone.")
    ] = None,
    score_threshold: Annotated[float | None, typer.Option(help="The lowest score of a hit.")] = None,
    rerank: options.Rerank = None,
    truncate: options.Truncate = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer instead of a table.")] = False,
) -> None:
    """Find the documents of a collection that are nearest in meaning to a query, or have its words."""
    route = collection_path(collection)
    group = "document" if by_document else None
    body = {"query": query, "k": k, "filter": options.parse_filter(condition), "group": group, "truncate": truncate}
    body |= {"mode": mode, "weights": _weights(weights), "diversity": diversity}
    body |= {"score_threshold": score_threshold, "rerank": options.parse_rerank(rerank)}
    answer = ask_once(Service(url, config, api_key), f"{route}/search", body, {"query": "the query"})
    if as_json:
        emit_json(answer)
        return
    options.warn_of_filter(answer)
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


def _weights(given: str | None) -> dict[str, float] | None:
    if given is None:
        return None
    try:
        return {name.strip(): float(weight) for name, weight in (part.split("=") for part in given.split(","))}
    except ValueError:
        raise Failure(f"--weights {given!r}: write them as 'dense=1,keyword=0.5'.", 2) from None
