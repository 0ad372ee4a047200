"""`millpond embed`."""

from __future__ import annotations

import asyncio
import codecs
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
import typer

from service.cli import options
from service.cli.client import (
    Client,
    Refused,
    Service,
    check_text,
    connect,
    pipelined,
    unknown_tokens,
    warn_about_unknown,
    without_empty,
)
from service.cli.console import Failure, emit, warn

_BATCH: Final = 64
_SHOWN: Final = 5
"""Names of texts without a vector in the warning of them."""
Vector = list[float]


def embed(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to embed.")] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="A file with a text a line, or .jsonl with a 'text' a line.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    config: options.Config = None,
    api_key: options.ApiKey = None,
    model: options.Model = None,
    pooling: options.Pooling = None,
    layers: options.Layers = None,
    truncate: options.Truncate = False,
    prompt_name: options.PromptName = None,
    input_type: options.InputType = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Keep the first dimensions only, normalised anew.")
    ] = None,
    form: Annotated[
        Literal["json", "npy"], typer.Option("--format", help="A JSON array a line, or one NumPy array of float32.")
    ] = "json",
    output: Annotated[Path | None, typer.Option(help="A file to write instead of standard output.")] = None,
) -> None:
    """Embed texts: the arguments, the lines of a file, or those of standard input. One vector a text, in order."""
    asked = {
        "model": model,
        "pooling": pooling,
        "layers": options.parse_layers(layers),
        "prompt_name": prompt_name,
        "input_type": input_type,
        "dimensions": dimensions,
    }
    settings = {key: value for key, value in asked.items() if value is not None} | {"truncate": truncate}
    named = _texts(texts, input_file)
    if form == "npy" and output is None and sys.stdout.isatty():
        raise Failure("--format npy is binary and no terminal shows it; give --output FILE or a pipe.", 2)
    try:
        file = output.open("wb") if output else None
    except OSError as error:
        raise Failure(f"--output {output}: {error.strerror}. Name a file that can be written.", 2) from None
    write: Callable[[bytes], Any] = file.write if file else emit

    skipped: list[str] = []
    unknown = 0

    async def run() -> None:
        nonlocal unknown
        async with connect(Service(url, config, api_key), stores=False) as client:
            before = await unknown_tokens(client, model)
            vectors = _embed(client, named, settings, skipped)
            if form == "json":
                async for batch in vectors:
                    write(b"".join(orjson.dumps(vector) + b"\n" for vector in batch))
            else:
                write(_npy([vector async for batch in vectors for vector in batch]))
            unknown = await unknown_tokens(client, model) - before

    with file or nullcontext():
        asyncio.run(run())
    warn_about_unknown(unknown)
    if skipped:
        shown = ", ".join(skipped[:_SHOWN]) + (", ..." if len(skipped) > _SHOWN else "")
        warn(
            f"{len(skipped)} of {len(named)} texts have no vector, as the model knows no token of them (invisible "
            f"characters, say): {shown}."
        )


async def _embed(
    client: Client, named: Sequence[tuple[str, str]], settings: dict[str, Any], skipped: list[str]
) -> AsyncIterator[list[Vector]]:
    """Yield the vectors of each request, and note in `skipped` which texts have none."""

    async def ask(batch: Sequence[tuple[str, str]]) -> list[Vector]:
        try:
            inputs = [text for _, text in batch]
            vectors: list[Vector] = await client.ask("POST", "/embed", {"inputs": inputs, **settings})
            return vectors
        except Refused as error:
            if error.without_tokens and len(named) > 1:
                raise
            index = error.place.index if error.place else None
            raise Failure(str(error) if index is None else error.about(batch[index][0])) from None

    async def send(batch: Sequence[tuple[str, str]]) -> tuple[list[Vector] | None, list[tuple[str, str]]]:
        return await without_empty(batch, ask)

    batches = (named[start : start + _BATCH] for start in range(0, len(named), _BATCH))
    async for _, (vectors, left_out) in pipelined(batches, send):
        skipped += [name for name, _ in left_out]
        yield vectors or []


def _texts(arguments: list[str] | None, file: Path | None) -> list[tuple[str, str]]:
    """Return each text with its name in errors. All are read at once: they are far smaller than their vectors."""
    if arguments and file:
        raise Failure("give texts as arguments or --input, not both.", 2)
    if arguments:
        named = [(f"text {number}", text) for number, text in enumerate(arguments, 1)]
        for name, text in named:
            check_text(text, name)
        return named
    if file is None and sys.stdin.isatty():
        raise Failure("there is nothing to embed: give texts as arguments, --input FILE, or lines on stdin.", 2)
    source = str(file) if file else "standard input"
    try:
        content = file.read_bytes() if file else sys.stdin.buffer.read()
    except OSError as error:
        raise Failure(f"--input {file}: {error.strerror}. Name a file of texts, one a line.", 2) from None
    named = []
    for number, raw in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        name = f"{source}: line {number}"
        try:
            text = _json_text(raw) if file and file.suffix in (".jsonl", ".ndjson") else raw.decode()
        except UnicodeDecodeError as error:
            raise Failure(f"{name} is not valid UTF-8 at byte {error.start + 1}. Save it as UTF-8.", 2) from None
        except ValueError as error:
            raise Failure(f"{name}: {error}", 2) from None
        if not text.strip():  # skipping it silently would shift all later vectors
            raise Failure(f"{name} is empty and has no vector. Leave it out.", 2)
        named.append((name, text))
    if not named:
        raise Failure(f"{source} holds no text. Give at least one line.", 2)
    return named


def _json_text(raw: bytes) -> str:
    from service.cli.documents import parse_object, string_field

    return string_field(parse_object(raw), "text")


def _npy(vectors: list[Vector]) -> bytes:
    import numpy as np

    content = BytesIO()
    np.save(content, np.array(vectors, dtype=np.float32))
    return content.getvalue()
