"""`millpond collections`."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from service.cli import options
from service.cli.client import Service, ask_all, collection_path
from service.cli.console import Failure, emit, emit_json, err, out

app = typer.Typer(no_args_is_help=True, help="List, describe, rename, copy, alias and drop collections.")

_Name = Annotated[str, typer.Argument(help="The collection's name.")]
_To = Annotated[str, typer.Argument(help="A name that is not taken.")]
_Alias = Annotated[str, typer.Argument(help="The alias.")]


@app.command("list")
def list_(
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List all collections."""
    (answer,) = ask_all(Service(url, config, api_key), ("GET", "/collections", None))
    if as_json:
        for collection in answer["collections"]:
            emit(orjson.dumps(collection) + b"\n")
        return
    if not answer["collections"]:
        err.print("There is no collection. `millpond index` creates one.")
        return
    table = Table(box=None, pad_edge=False)
    for header in ("name", "aliases", "model", "pooling", "index", "documents", "stored"):
        table.add_column(header, overflow="fold", justify="right" if header in ("documents", "stored") else "left")
    for each in answer["collections"]:
        cells = (each["name"], ", ".join(each["aliases"]), each["model"], each["pooling"], each["index"])
        table.add_row(*cells, str(each["count"]), _size(each["stored_bytes"]))
    out.print(table)


@app.command()
def stats(
    name: _Name,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
) -> None:
    """Describe a collection: what it is made with, what it holds, and how large that is."""
    emit_json(_ask(Service(url, config, api_key), "GET", collection_path(name)))


@app.command()
def rename(
    name: _Name,
    to: _To,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
) -> None:
    """Give a collection another name; its aliases stay."""
    _ask(Service(url, config, api_key), "POST", f"{collection_path(name)}/rename", {"to": to})
    out.print(f"{name!r} is {to!r} now.")


@app.command()
def copy(
    name: _Name,
    to: _To,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
) -> None:
    """Copy a collection with all its documents, inside the service, which goes on with searches."""
    copied = _ask(Service(url, config, api_key), "POST", f"{collection_path(name)}/copy", {"to": to})
    out.print(f"{copied['count']} documents of {name!r} copied to {to!r}")


@app.command()
def alias(
    alias: _Alias,
    name: Annotated[str | None, typer.Argument(help="The collection that it is to stand for.")] = None,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias; the collection stays.")] = False,
) -> None:
    """Make an alias stand for a collection, in one step where it stood for another one."""
    if (name is None) != delete:
        raise Failure("give the collection that the alias is to stand for, or --delete.", 2)
    path = collection_path(alias).replace("/collections/", "/aliases/", 1)
    if delete:
        _ask(Service(url, config, api_key), "DELETE", path)
        out.print(f"{alias!r} is no alias any more.")
    else:
        stands = _ask(Service(url, config, api_key), "PUT", path, {"collection": name})["collection"]
        out.print(f"{alias!r} stands for {stands!r} now.")


@app.command()
def drop(
    name: _Name,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
) -> None:
    """Delete a collection with all its documents and aliases."""
    path = collection_path(name)
    about, _ = ask_all(Service(url, config, api_key), ("GET", path, None), ("DELETE", path, None))
    out.print(f"{name!r} is dropped, and its {about['count']} documents with it.")


def _ask(service: Service, method: str, path: str, body: Any = None) -> Any:
    return ask_all(service, (method, path, body))[0]


def _size(count: float) -> str:
    """Return a number of bytes in a unit that leaves up to three digits before the point."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
