"""`millpond doctor`."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service.cli import options
from service.cli.client import key_header, parse_url, uses_proxy
from service.cli.console import Failure, Interrupted, emit_json, err
from service.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from service.doctor.findings import Finding, Report, Strategy

_WIDEST: Final = 100
_COLOURS: Final = {"ok": "green", "warning": "bold yellow", "fault": "bold red"}
_TIMEOUT: Final = 120.0

Progress = Callable[[str], object]


def doctor(
    model: Annotated[str, typer.Argument(help="`bundled/NAME`, a folder, or a Hugging Face id.")],
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a Hugging Face id.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Texts like those that will be served, one a line; by default packaged ones.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="A server that is said to serve the model: Millpond, or one of OpenAI's or TEI's shape."),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="What that server calls the model; by default the first that it lists.")
    ] = None,
    api_key: options.ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of tables.")] = False,
) -> None:
    """Examine a model: what it declares, whether that is right and followed, and how far off each mistake would be.

    With --url, tell from a server's vectors which pooling it really applies.

    Exit status: 0 where nothing is wrong, though there may be warnings; 1 where a fault is found, or the server gives
    no vectors that can be compared; 2 where an argument is wrong, or there is no such model; 130 after Ctrl-C.
    """
    if url is None and model_name is not None:
        raise Failure("--model-name is what a server calls the model; name the server with --url.", 2)
    if url is not None and texts is not None:
        raise Failure(
            "--texts is for examining a model; a server is identified with packaged texts. Leave one out.", 2
        )
    if url is not None:
        parse_url(url)
    lines = None if texts is None else _read_texts(texts)
    from service.checkpoint import find_folder
    from service.doctor.findings import refused

    try:
        folder = find_folder(model, revision)
        try:
            with err.status("") as status:  # which shows on a terminal only
                report = asyncio.run(
                    _examine(model, folder, lines, status.update)
                    if url is None
                    else _identify(model, folder, url, model_name, api_key, status.update)
                )
        except (CheckpointError, ConfigError) as error:
            report = refused(model, str(error))
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; nothing was changed. Run the same command again.") from None
    if as_json:
        emit_json(report.to_json())
    else:
        _print(report, served="this server" if url else "served here")
    if report.faults:
        raise typer.Exit(1)


async def _examine(model: str, folder: Path, lines: list[str] | None, progress: Progress) -> Report:
    from service.doctor.examine import examine
    from service.doctor.folder import opened
    from service.doctor.reference import here

    with opened(folder) as (embedder, unknown):
        return await examine(embedder, reference=here, model=model, texts=lines, unknown=unknown, progress=progress)


async def _identify(
    model: str, folder: Path, url: str, model_name: str | None, api_key: str | None, progress: Progress
) -> Report:
    import httpx

    from service.doctor.endpoint import EndpointError, find

    headers = key_header(api_key)
    try:
        async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=uses_proxy(url)) as http:
            progress(f"asking {url}")  # before loading a model, which takes longer
            endpoint = await find(http, url, model=model, model_name=model_name)
            progress(f"loading {model}")
            from service.doctor.folder import opened
            from service.doctor.identify import identify

            with opened(folder) as (embedder, _):
                return await identify(embedder, endpoint, model, progress)
    except EndpointError as error:
        raise Failure(str(error)) from None


def _read_texts(path: Path) -> list[str]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Failure(f"--texts {path}: {error.strerror}. Name a file of texts, one a line.", 2) from None
    except UnicodeDecodeError as error:
        raise Failure(f"--texts {path}: is not valid UTF-8 at byte {error.start + 1}. Save it as UTF-8.", 2) from None
    lines = [line for line in content.split("\n") if line.strip()]
    if not lines:
        raise Failure(f"--texts {path}: holds no text. Give at least one line.", 2)
    return lines


def _print(report: Report, served: str) -> None:
    """Print tables of at most 100 columns, and the verdict as the last line."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    out = Console(markup=False, highlight=False, emoji=False, width=width)
    for table in (
        _settings(report.declared, report.served, served),
        _findings(report.findings),
        _strategies(report.strategies),
    ):
        if table.row_count:
            out.print(table)
            out.print()
    out.print(report.verdict, soft_wrap=True)


def _settings(declared: Mapping[str, Any], served: Mapping[str, Any], title: str) -> Table:
    sides = (Column(header, overflow="fold") for header in ("declared", title))
    table = Table(Column("", no_wrap=True), *sides, box=None, pad_edge=False)
    for name in dict.fromkeys((*declared, *served)):
        values = [_format(side[name]) if name in side else "" for side in (declared, served)]
        if any(value not in ("", "none") for value in values):
            table.add_row(name.replace("_", " "), *values)
    return table


def _findings(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what was seen, and what to do", overflow="fold")
    for finding in findings:
        seen = f"{finding.seen}\n-> {finding.remedy}" if finding.remedy else finding.seen
        table.add_row(finding.name, Text(finding.severity, style=_COLOURS[finding.severity]), seen)
    return table


def _strategies(strategies: Sequence[Strategy]) -> Table:
    with_evidence = any(strategy.evidence is not None for strategy in strategies)
    headers = ("cosine", "least", *(("AUC", "gain", "99 % interval") if with_evidence else ()))
    numbers = (Column(header, justify="right", no_wrap=True) for header in headers)
    table = Table(Column("if pooled with", overflow="fold"), *numbers, box=None, pad_edge=False)
    for strategy in strategies:
        row = [strategy.pooling, f"{strategy.cosine:.4f}", f"{strategy.least_cosine:.4f}"]
        if (evidence := strategy.evidence) is not None:
            low, high = evidence.interval
            row += [f"{evidence.auc:.3f}", f"{evidence.gain:+.3f}", f"{low:+.3f} to {high:+.3f}"]
        table.add_row(*row)
    return table


def _format(value: Any) -> str:
    match value:
        case None | "" | {}:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4f}"
        case dict():
            return ", ".join(f"{name}: {text!r}" for name, text in value.items())
        case _:
            return str(value)
