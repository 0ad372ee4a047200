"""`millpond export`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import options
from service.cli.client import Service, collection_path, connect
from service.cli.console import Failure, progress_bar, say
from service.cli.sinks import Sink, StandardOutput, open_sink

if TYPE_CHECKING:
    from collections.abc import Iterator


def export(
    collection: Annotated[str, typer.Argument(help="The collection's name.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="A new .jsonl, .jsonl.gz, .jsonl.zst or .parquet; standard output unless given."),
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the vectors, so that none need be made when it is stored again.")
    ] = False,
) -> None:
    """Write every document of a collection to a file, as of one moment, while others may store more.

    `millpond index` reads such a file.
    """
    route = collection_path(collection)
    count = asyncio.run(_run(Service(url, config, api_key), route, file, vectors))
    if file is not None:
        say(f"{count} documents in {file}")


async def _run(service: Service, route: str, file: Path | None, vectors: bool) -> int:
    async with connect(service) as client:
        total = (await client.ask("GET", route))["count"]
        path = f"{route}/export{'?include=vectors' if vectors else ''}"
        count = 0
        with _sink(file) as sink, progress_bar() as bar:
            task = bar.add_task("exporting", total=total)
            async for line in client.lines(path):
                sink.write(line)
                count += 1
                if not count % 64:
                    bar.update(task, completed=count)
        return count


def _sink(file: Path | None) -> AbstractContextManager[Sink]:
    return nullcontext(StandardOutput()) if file is None else _whole(file)


@contextmanager
def _whole(file: Path) -> Iterator[Sink]:
    """Write a file under another name, which becomes its own once it is whole."""
    if file.exists():
        raise Failure(f"{file} exists already. Delete it first, or name another file.", 2)
    partial = file.with_name(f".{file.name}.partial")
    try:
        with open_sink(file, partial) as sink:
            yield sink
        partial.rename(file)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}. Nothing is written.", 1) from None
    finally:
        partial.unlink(missing_ok=True)
