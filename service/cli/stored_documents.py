"""`millpond documents`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import orjson
import typer
from rich.table import Table

from service.cli import options
from service.cli.client import Service, ask_all, collection_path, connect
from service.cli.console import ON_SCREEN, Failure, emit, emit_json, err, one_line, out, say, warn

_OF_A_TABLE: Final = 20
"""Documents in a table, unless another number is asked for."""
_OF_A_PAGE: Final = 1000

app = typer.Typer(no_args_is_help=True, help="List, count, get, delete and update documents of a collection.")

_Ids = Annotated[list[str] | None, typer.Argument(help="Ids of documents.", show_default=False)]
_All = Annotated[bool, typer.Option("--all", help="All documents of the collection.")]
_Vectors = Annotated[bool, typer.Option("--vectors", help="With --json: the vectors too.")]
_Lines = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command("list")
def list_(
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    condition: options.Filter = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Documents wanted; unless given {_OF_A_TABLE}, and with --json all of them."),
    ] = None,
    vectors: _Vectors = False,
    as_json: _Lines = False,
) -> None:
    """List documents in the order of storing: a table, or with --json all of them, as `millpond index` reads them."""
    wanted = limit if limit is not None or as_json else _OF_A_TABLE
    asked = {"filter": options.parse_filter(condition), "include": _include(vectors and as_json)}

    async def run() -> None:
        found: list[dict[str, Any]] = []
        async for page in _pages(Service(url, config, api_key), collection, asked, wanted):
            if as_json:
                emit(b"".join(orjson.dumps(document) + b"\n" for document in page["documents"]))
            else:
                found += page["documents"]
        options.warn_of_filter(page)
        if found:
            out.print(_table(found))
        elif not as_json:
            err.print(f"No document of {collection!r} matches.")
        if page["cursor"] and not as_json:
            err.print(f"These are the first {wanted}; --limit shows more, and --json all.")

    asyncio.run(run())


@app.command()
def count(
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    condition: options.Filter = None,
) -> None:
    """Count the documents, with --filter those that match it."""
    body = {"filter": options.parse_filter(condition)}
    answer = _ask(Service(url, config, api_key), collection, "count", body)
    options.warn_of_filter(answer)
    say(str(answer["count"]))


@app.command()
def get(
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.")],
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    vectors: _Vectors = False,
    as_json: _Lines = False,
) -> None:
    """Print documents as JSON, in the order of their ids; the exit status is 1 where one is missing."""
    body = {"ids": ids, "include": _include(vectors and as_json)}
    answer = _ask(Service(url, config, api_key), collection, "get", body)
    for document in answer["documents"]:
        if as_json:
            emit(orjson.dumps(document) + b"\n")
        else:
            emit_json(document)
    if answer["missing"]:
        raise Failure(f"collection {collection!r} has no {_named(answer['missing'])}.")


@app.command()
def delete(
    collection: options.Collection,
    ids: _Ids = None,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    condition: options.Filter = None,
    everything: _All = False,
) -> None:
    """Delete documents: those with some ids, those that match --filter, or --all; all of them or none."""
    body = _selection(ids, condition, everything=everything)
    answer = _ask(Service(url, config, api_key), collection, "delete", body)
    options.warn_of_filter(answer)
    _tell(collection, answer["deleted"], "deleted", answer["missing"])


@app.command()
def update(
    collection: options.Collection,
    ids: _Ids = None,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    condition: options.Filter = None,
    everything: _All = False,
    merge: Annotated[
        str | None,
        typer.Option(help="""Set some keys, as JSON: '{"lang": "en", "draft": null}'; null removes its key."""),
    ] = None,
    replace: Annotated[str | None, typer.Option(help="The metadata that each is to have, as JSON.")] = None,
) -> None:
    """Change the metadata of documents: of some ids, of what matches --filter, or of --all; of all of them or none.

    Nothing is embedded again.
    """
    if (merge is None) == (replace is None):
        raise Failure("give one of --merge and --replace.", 2)
    changes = {"merge": options.parse_object("--merge", merge, '{"lang": "en", "draft": null}')} | {
        "replace": options.parse_object("--replace", replace, '{"lang": "en"}')
    }
    body = _selection(ids, condition, everything=everything) | changes
    answer = _ask(Service(url, config, api_key), collection, "metadata", body)
    options.warn_of_filter(answer)
    _tell(collection, answer["updated"], "updated", answer["missing"])


async def _pages(
    service: Service, collection: str, asked: dict[str, Any], wanted: int | None
) -> AsyncIterator[dict[str, Any]]:
    """Yield pages of documents, one or more, until they have `wanted` together, None for all."""
    path, left = f"{collection_path(collection)}/documents/list", wanted
    page: dict[str, Any] = {"cursor": None}
    async with connect(service) as client:
        while True:
            limit = _OF_A_PAGE if left is None else min(left, _OF_A_PAGE)
            page = await client.ask("POST", path, asked | {"limit": limit, "cursor": page["cursor"]})
            yield page
            left = None if left is None else left - len(page["documents"])
            if page["cursor"] is None or left == 0:
                return


def _ask(service: Service, collection: str, what: str, body: dict[str, Any]) -> Any:
    return ask_all(service, ("POST", f"{collection_path(collection)}/documents/{what}", body))[0]


def _table(documents: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, expand=ON_SCREEN)
    table.add_column("id", overflow="fold")
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1, min_width=20)
    table.add_column("metadata", no_wrap=True, overflow="ellipsis", ratio=1)
    for each in documents:
        metadata = orjson.dumps(each["metadata"]).decode()
        table.add_row(one_line(each["id"], 512), one_line(each["text"], 120), one_line(metadata, 120))
    return table


def _include(vectors: bool) -> list[str]:
    return ["text", "metadata", "spans", *(["vector"] if vectors else [])]


def _selection(ids: list[str] | None, condition: str | None, *, everything: bool) -> dict[str, Any]:
    """Return the part of a request that says which documents it is for; raises `Failure` unless that is one thing."""
    if bool(ids) + (condition is not None) + everything != 1:
        raise Failure("say which documents: by their ids, by --filter, or --all; one of the three.", 2)
    return {"ids": ids or None, "filter": options.parse_filter(condition), "all": everything}


def _named(missing: list[str]) -> str:
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    return f"document {', '.join(map(repr, missing[:10]))}{more}"


def _tell(collection: str, number: int, done: str, missing: list[str]) -> None:
    out.print(f"{number} {done}")
    if missing:
        warn(f"collection {collection!r} has no {_named(missing)}.")
