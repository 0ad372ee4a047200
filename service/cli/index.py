"""`millpond index`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import options
from service.cli.client import (
    Client,
    Refused,
    collection_path,
    connect,
    pipelined,
    unknown_tokens,
    warn_about_unknown,
    without_empty,
)
from service.cli.console import Failure, Interrupted, out, rated_bar, warn

if TYPE_CHECKING:
    from service.cli.documents import Count, Line


@dataclass
class _Progress:
    """Documents that the service has stored, and the seconds it took."""

    stored: int = 0
    unchanged: int = 0
    skipped: list[Line] = field(default_factory=list)
    """Documents of whose text the model knows no token."""
    unknown: int = 0
    """Tokens of all that are unknown to the model."""
    seconds: float = 0.0


def index(
    file: Annotated[
        Path, typer.Argument(help="JSON lines, {id, text, metadata?, spans?} each, or a BEIR folder or corpus.")
    ],
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    model: options.Model = None,
    pooling: options.Pooling = None,
    chunking: options.Chunking = None,
    similarity: Annotated[
        str | None,
        typer.Option(help="How vectors are compared: cosine, dot or euclidean; as the model declares unless given."),
    ] = None,
    truncate: options.Truncate = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents in one request.")] = 64,
) -> None:
    """Store the documents of a file in a collection, which is created where it is missing.

    It may be stopped at any time and run again: what is stored already is not embedded a second time. A
    collection that exists keeps its model, pooling, chunking and similarity; naming others is refused.
    """
    from service.cli.chunks import parse_chunking
    from service.cli.documents import check, corpus_file

    route = collection_path(collection)
    cut = None if chunking is None else parse_chunking(chunking)
    asked = {"model": model, "pooling": pooling, "chunking": cut, "similarity": similarity}
    corpus = corpus_file(file)
    count = check(corpus)
    done = _Progress()

    async def run() -> None:
        async with connect(url, config) as client:
            created = await _create(client, route, asked)
            name = (await client.ask("GET", route))["model"]
            before = await unknown_tokens(client, name)
            try:
                await _upload(client, route, corpus, count, done, batch_size=batch_size, truncate=truncate)
            except Failure:
                if created and not done.stored:
                    await _drop_empty(client, route)
                raise
            if created and not done.stored and await _drop_empty(client, route):
                warn(f"collection {collection!r} is not kept: it is new, and no document is stored.")
            done.unknown = await unknown_tokens(client, name) - before

    go_on = "Run the same command again to go on."
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: at least {done.stored} of {count.documents} documents are stored. {go_on}"
        ) from None
    except Failure as error:
        if not done.stored:
            raise
        stored = f"{done.stored} of {count.documents} documents are stored. {go_on}"
        raise Failure(f"{error}\n{stored}", error.exit_status, table=error.table) from None
    warn_about_unknown(done.unknown)
    if done.skipped:
        first = done.skipped[0]
        warn(
            f"{len(done.skipped)} documents are skipped, as the model knows no token of their text (invisible "
            f"characters, say); the first is in line {first.number}: {first.document.id!r}."
        )
    rate = done.stored / done.seconds if done.stored else 0.0
    out.print(
        f"{done.stored} stored ({done.unchanged} unchanged), {count.empty + len(done.skipped)} empty skipped, "
        f"{done.seconds:.1f} s, {rate:.1f} documents/s"
    )


async def _create(client: Client, route: str, asked: dict[str, Any]) -> bool:
    """Create the collection, and return whether it is new; one that exists is used if no other options were given."""
    definition = {key: value for key, value in asked.items() if value is not None}
    try:
        await client.ask("GET", route)
        created = False
    except Refused as error:
        if error.status != 404:
            raise
        created = True
    if created or definition:
        await client.ask("PUT", route, definition)
    return created


async def _drop_empty(client: Client, route: str) -> bool:
    """Delete a collection that was created for documents none of which is stored, unless others are in it by now."""
    with suppress(Failure):  # what is told is why they were refused
        if (await client.ask("GET", route))["count"] == 0:
            await client.ask("DELETE", route)
            return True
    return False


async def _upload(
    client: Client, route: str, corpus: Path, count: Count, done: _Progress, *, batch_size: int, truncate: bool
) -> None:
    from service.cli.documents import read

    async def ask(batch: Sequence[Line]) -> Any:
        body = {"documents": [line.document.to_json() for line in batch], "truncate": truncate}
        try:
            return await client.ask("POST", f"{route}/documents", body)
        except Refused as error:
            if error.without_tokens:
                raise
            raise Failure(_in_file(error, batch, corpus), table=error.table) from None

    async def send(batch: Sequence[Line]) -> tuple[Any, list[Line]]:
        return await without_empty(batch, ask)

    began = time.monotonic()
    with rated_bar() as bar:
        task = bar.add_task("", total=count.documents, rate="")
        async for batch, (answer, skipped) in pipelined(_batches(read(corpus), batch_size), send):
            done.stored += len(batch) - len(skipped)
            done.skipped += skipped
            done.unchanged += answer["unchanged"] if answer else 0
            done.seconds = time.monotonic() - began
            bar.advance(task, len(batch))
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.0f} documents/s" if speed else "")


def _batches(lines: Iterable[Line], size: int) -> Iterator[list[Line]]:
    lines = iter(lines)
    while batch := list(islice(lines, size)):
        yield batch


def _in_file(error: Refused, batch: Sequence[Line], corpus: Path) -> str:
    """Return the message of an error, with the line of the file in place of the place in the request."""
    place = error.place
    if place is not None and place.index is not None:
        line = batch[place.index]
        name = f"{corpus}: line {line.number}: document {line.document.id!r}"
        return error.about(name if place.span is None else f"{name}, span {place.span}")
    return f"{error} Give a smaller --batch-size." if error.status == 413 else str(error)
