"""`millpond reindex`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import typer

from service.cli import options
from service.cli.chunks import parse_chunking
from service.cli.client import Client, Service, collection_path, connect
from service.cli.console import Failure, Interrupted, out, rated_bar

_PAUSE: Final = 0.25
"""Seconds between requests for the progress."""


def reindex(
    name: Annotated[str, typer.Argument(help="The collection's name.")],
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    model: Annotated[str | None, typer.Option(help="The model it is to have; its own unless given.")] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="The pooling it is to have; what it was created with unless given, or --model's own."),
    ] = None,
    chunking: Annotated[
        str | None,
        typer.Option(
            help="How documents are to be cut: tokens=64,overlap=16 or sentence or given, with ,mode=early each span "
            "by itself; none for one vector a document. As they are unless given."
        ),
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(
            help="How vectors are to be compared: cosine, dot or euclidean; as they are unless given, or as --model "
            "declares."
        ),
    ] = None,
    truncate: options.Truncate = False,
    force: Annotated[bool, typer.Option("--force", help="Embed it again also where nothing differs.")] = False,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="Stop the reindex under way, drop what it made, and leave all as it was."),
    ] = False,
) -> None:
    """Embed a collection anew from its stored text, with the model and pooling that are served now.

    It is served as it was until the last document is done. What is embedded is kept: stopped in whatever way, the
    same command goes on from there.
    """
    route = f"{collection_path(name)}/reindex"
    asked: dict[str, Any] = {"model": model, "pooling": pooling, "truncate": truncate, "force": force}
    if similarity is not None:
        asked["similarity"] = similarity
    if chunking is not None:
        asked["chunking"] = parse_chunking(chunking)
    progress: dict[str, Any] = {}

    async def run() -> None:
        async with connect(Service(url, config, api_key)) as client:
            if abandon:
                await client.ask("DELETE", route)
            else:
                await _follow(client, route, asked, progress)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise Interrupted(_interrupted(name, progress, in_process=config is not None)) from None
    if abandon:
        out.print(f"The reindex of {name!r} is abandoned; the collection is as it was.")
        return
    if progress["state"] == "failed":
        raise Failure(progress["error"])
    if progress["state"] == "interrupted":
        raise Failure(
            f"The reindex was interrupted, since what ran it has ended: {progress['done']} of {progress['total']} "
            "documents are embedded and kept, and the collection is as it was. Run the same command again to go on."
        )
    out.print(_summary(name, progress))


async def _follow(client: Client, route: str, asked: dict[str, Any], progress: dict[str, Any]) -> None:
    """Begin a reindex and follow it to its end, keeping its last reported state in `progress`."""
    with rated_bar() as bar:
        progress |= await client.ask("POST", route, asked)
        task = bar.add_task("", total=progress["total"], completed=progress["done"], rate="")
        while progress["state"] == "running":
            await asyncio.sleep(_PAUSE)
            progress |= await client.ask("GET", route)
            bar.update(task, total=progress["total"], completed=progress["done"], rate=_rate(progress))


def _rate(progress: dict[str, Any]) -> str:
    return f"{progress['texts_per_second']:.1f} documents/s" if progress["texts_per_second"] else ""


def _summary(name: str, progress: dict[str, Any]) -> str:
    before, after = progress["from"], progress["to"]
    if progress["state"] == "unneeded":
        return (
            f"Nothing to do: {name!r} is embedded with model {after['model']!r}, pooling {after['pooling']!r}, "
            f"fingerprint {after['fingerprint']}, which is served. --force embeds it all the same."
        )
    changes = [
        f"{key} {_format(before[key])} -> {_format(after[key])}" for key in before if before[key] != after[key]
    ]
    rate = f", {_rate(progress)}" if _rate(progress) else ""
    return (
        f"{progress['total']} documents of {name!r} re-embedded{rate}: {'; '.join(changes) or 'nothing else changed'}"
    )


def _format(value: str | dict[str, Any] | None) -> str:
    """Format a part of a definition; a chunking as `--chunking` takes it."""
    if isinstance(value, dict):
        return ",".join(f"{key}={part}" for key, part in value.items())
    return value or "none"


def _interrupted(name: str, progress: dict[str, Any], *, in_process: bool) -> str:
    if not progress:
        return "Interrupted before anything was begun."
    done = f"{progress['done']} of {progress['total']} documents are embedded"
    if in_process:
        return f"Interrupted: {done} and kept, and the collection is as it was. Run the same command again to go on."
    return (
        f"No longer watching: {done}, and the service goes on. Run the same command again to watch it, or "
        f"`millpond reindex {name} --abandon` to stop it."
    )
