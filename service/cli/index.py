"""`millpond index`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from service.cli import options
from service.cli.client import (
    Client,
    Refused,
    Service,
    collection_path,
    connect,
    pipelined,
    unknown_tokens,
    warn_about_unknown,
)
from service.cli.console import Failure, Interrupted, open_ended_bar, out, warn
from service.cli.rejects import Rejects
from service.cli.wording import in_options, too_long
from service.errors import TooLong

if TYPE_CHECKING:
    from service.cli.sources import Row, Source

_MOST_BYTES: Final = 8 * 2**20
"""Bytes of one request, which ends there though it has fewer documents than were asked for."""

_TOO_LONG: Final = re.compile(r" has (\d+) tokens and model .* takes (\d+)\. ")


class _Progress:
    """Documents that the service has stored, and the seconds it took."""

    stored: int = 0
    unchanged: int = 0
    seconds: float = 0.0
    unknown: int = 0
    """Tokens of all that are unknown to the model."""


def index(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines, {id, text, metadata?, spans?} each, CSV, TSV or Parquet, a BEIR folder or corpus, or a "
            "folder of .txt and .md files; also .gz and .zst."
        ),
    ],
    collection: options.Collection,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    model: options.Model = None,
    pooling: options.Pooling = None,
    chunking: options.Chunking = None,
    similarity: Annotated[
        str | None,
        typer.Option(help="How vectors are compared: cosine, dot or euclidean; as the model declares unless given."),
    ] = None,
    dimension: Annotated[
        int | None, typer.Option(min=1, help="Make a collection of vectors of so many numbers, which the file has.")
    ] = None,
    tokenizer: Annotated[
        Literal["unicode61", "porter", "trigram", "none"] | None,
        typer.Option(
            help="How a new collection is searched by words: by words, by stems of English ones, by parts of words "
            "from three characters on, or not at all; unicode61 unless given."
        ),
    ] = None,
    truncate: options.Truncate = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents in one request.")] = 64,
    rejects: Annotated[
        Path | None, typer.Option(help="Write what is left out to this file, with the reason: a JSON object a line.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first document that cannot be stored.")
    ] = False,
    embed_again: Annotated[
        bool, typer.Option("--embed-again", help="Embed the texts of a file that has vectors, and leave those aside.")
    ] = False,
) -> None:
    """Store the documents of a file in a collection, which is created where it is missing.

    It may be stopped at any time and run again: what is stored already is not embedded a second time. A
    collection that exists keeps its model, pooling, chunking and similarity; naming others is refused. What cannot
    be stored is left out and told; the exit status is 1 then, unless all of it had no text.
    """
    from service.cli.chunks import parse_chunking
    from service.cli.sources import open_source

    route = collection_path(collection)
    cut = None if chunking is None else parse_chunking(chunking)
    given = {"model": model, "pooling": pooling, "chunking": cut, "similarity": similarity, "dimension": dimension}
    asked: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if tokenizer is not None:
        asked["keyword"] = None if tokenizer == "none" else {"tokenizer": tokenizer}
    source = open_source(file)
    done = _Progress()
    with Rejects(source.path, rejects, strict=strict) as rejected:
        upload = _Upload(source, done, rejected, truncate, batch_size, embed_again)
        run = _run(Service(url, config, api_key), route, asked, upload)
        go_on = "Run the same command again to go on."
        try:
            asyncio.run(run)
        except KeyboardInterrupt:
            raise Interrupted(f"Interrupted: at least {done.stored} documents are stored. {go_on}") from None
        except Failure as error:
            if not done.stored:
                raise
            stored = f"{done.stored} documents are stored. {go_on}"
            raise Failure(f"{error}\n{stored}", error.exit_status, table=error.table) from None
        warn_about_unknown(done.unknown)
        rejected.tell()
    rate = done.stored / done.seconds if done.stored else 0.0
    left_out = f"{rejected.refused} rejected, " if rejected.refused else ""
    out.print(
        f"{done.stored} stored ({done.unchanged} unchanged), {rejected.empty} empty skipped, {left_out}"
        f"{done.seconds:.1f} s, {rate:.1f} documents/s"
    )
    if rejected.refused:
        raise typer.Exit(1)


async def _run(service: Service, route: str, asked: dict[str, Any], upload: _Upload) -> None:
    async with connect(service) as client:
        created = await _create(client, route, asked)
        name = (await client.ask("GET", route))["model"]
        before = await unknown_tokens(client, name)
        done = upload.done
        try:
            await upload.run(client, route)
        except Failure:
            if created and not done.stored:
                await _drop_empty(client, route)
            raise
        if created and not done.stored and await _drop_empty(client, route):
            warn(f"collection {route.rpartition('/')[2]!r} is not kept: it is new, and no document is stored.")
        done.unknown = await unknown_tokens(client, name) - before


async def _create(client: Client, route: str, asked: dict[str, Any]) -> bool:
    """Create the collection, and return whether it is new; one that exists is used if no other options were given."""
    try:
        await client.ask("GET", route)
        created = False
    except Refused as error:
        if error.status != 404:
            raise
        created = True
    if created or asked:
        await client.ask("PUT", route, asked)
    return created


async def _drop_empty(client: Client, route: str) -> bool:
    """Delete a collection that was created for documents none of which is stored, unless others are in it by now."""
    with suppress(Failure):  # what is told is why they were refused
        if (await client.ask("GET", route))["count"] == 0:
            await client.ask("DELETE", route)
            return True
    return False


class _Upload:
    """Sends the documents of a source in batches, and sorts out those that cannot be stored."""

    def __init__(
        self,
        source: Source,
        done: _Progress,
        rejects: Rejects,
        truncate: bool,
        batch_size: int,
        embed_again: bool,
    ) -> None:
        self.done = done
        self._source = source
        self._rejects = rejects
        self._truncate = truncate
        self._batch_size = batch_size
        self._left_aside = ("vector", "vectors", "fingerprint", "spans") if embed_again else ()

    async def run(self, client: Client, route: str) -> None:
        """Send all."""
        done = self.done

        async def send(batch: Sequence[Row]) -> tuple[int, int]:
            return await self._send(client, f"{route}/documents", batch)

        began = time.monotonic()
        with open_ended_bar() as bar:
            task = bar.add_task("", total=1.0, documents=0, rate="")
            async for _, (stored, unchanged) in pipelined(self._batches(), send):
                done.stored += stored
                done.unchanged += unchanged
                done.seconds = time.monotonic() - began
                rate = f"{done.stored / done.seconds:.0f} documents/s" if done.seconds else ""
                bar.update(task, completed=self._source.read, documents=done.stored, rate=rate)
            bar.update(task, completed=1.0)

    def _batches(self) -> Iterator[list[Row]]:
        from service.cli.sources import Problem
        from service.cli.sources.seen import Seen

        seen = Seen()
        batch: list[Row] = []
        size = 0
        for row in self._source:
            if isinstance(row, Problem):
                self._rejects.add(row, row.reason)
            elif not row.document["text"].strip() and not row.document.keys() & {"vector", "vectors"}:
                self._rejects.skip(row, "has no text.")
            elif not seen.add(row.id):
                self._rejects.add(
                    row, f"id {row.id!r} is taken by an earlier one. Give each document an id of its own."
                )
            else:
                if batch and size + row.size > _MOST_BYTES:
                    yield batch
                    batch, size = [], 0
                batch.append(row)
                size += row.size
                if len(batch) == self._batch_size:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    async def _send(self, client: Client, path: str, batch: Sequence[Row]) -> tuple[int, int]:
        """Send documents, those of a batch that is too large together in parts; return how many are stored."""
        documents = [{k: v for k, v in row.document.items() if k not in self._left_aside} for row in batch]
        body = {"documents": documents, "truncate": self._truncate}
        if not self._rejects.strict:
            body["on_error"] = "skip"
        try:
            answer = await client.ask("POST", path, body)
        except Refused as error:
            index = error.place.index if error.place else None
            if index is not None:
                self._rejects.add(batch[index], _reason(error.problem | error.problem["errors"][0], batch[index]))
                return 0, 0
            if error.status != 413:
                raise
            if len(batch) == 1:
                self._rejects.add(batch[0], f"document {batch[0].id!r}: {error}")
                return 0, 0
            halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
            (first, before), (second, after) = [await self._send(client, path, half) for half in halves]
            return first + second, before + after
        for entry in answer.get("rejected", ()):
            row = batch[entry["index"]]
            leave_out = self._rejects.skip if entry["empty"] else self._rejects.add
            leave_out(row, _reason(entry, row))
        return answer["upserted"], answer["unchanged"]


def _reason(entry: dict[str, Any], row: Row) -> str:
    """Return why a document was refused, in terms of the command line."""
    name = f"document {row.id!r}"
    detail = in_options(str(entry["detail"]))
    begun, closed, said = detail.partition(f" (id {row.id!r})")
    if closed and begun.startswith("documents["):
        detail = f"the vector of {name}{said}" if begun.endswith("].vector") else f"{name}{said}"
    if entry["code"] == TooLong.code:
        found = _TOO_LONG.search(detail)
        if found:
            return too_long(name, found[1], found[2])
        return f"{detail.rstrip('.')}. Give --truncate to embed the beginning of such texts alone, or split the text."
    return detail if name in detail else f"{name}: {detail}"
