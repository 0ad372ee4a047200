"""Console output, failures and messages of the commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Tables fit the screen. In a file or a pipe they are as wide as needed, so that each row is one line.
ON_SCREEN: Final = sys.stdout.isatty() or "COLUMNS" in os.environ
# Markup is off, as errors and documents may contain brackets.
out: Final = Console(markup=False, highlight=False, emoji=False, width=None if ON_SCREEN else 10_000)
err: Final = Console(markup=False, highlight=False, emoji=False, soft_wrap=True, stderr=True)


class Failure(Exception):
    """The end of a command. The message states what was wrong and the remedy, one problem per line.

    Args:
        message: for the user.
        exit_status: 1 where a request failed, 2 for usage and configuration.
        table: shown below the message.
    """

    def __init__(self, message: str, exit_status: int = 1, *, table: Table | None = None) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.table = table


class Interrupted(Failure):
    """The end of a command by Ctrl-C, which is no error."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 130)


def report(error: Exception) -> None:
    """Print each line of an error as an error."""
    for line in str(error).splitlines():
        err.print(line if isinstance(error, Interrupted) else Text.assemble(("error:", "bold red"), " ", line))
    if isinstance(error, Failure) and error.table is not None:
        err.print(error.table, soft_wrap=False)


def require(option: str, *paths: Path | None) -> None:
    """Raise `Failure` if there is nothing at a path that was given with an option."""
    for path in paths:
        if path is not None and not path.exists():
            raise Failure(f"{option} {path}: No such file or directory.", 2)


def say(text: str) -> None:
    """Print text without wrapping its lines, so that they can be copied."""
    out.print(text, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning."""
    err.print(Text.assemble(("warning:", "bold yellow"), " ", message))


def progress_bar() -> Progress:
    """Make a progress bar with a description, which shows on a terminal only and disappears at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=not err.is_terminal, transient=True)


def open_ended_bar() -> Progress:
    """Make a progress bar of a share, with a task's fields `documents` and `rate`, as `rated_bar` is shown."""
    share, count = TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[documents]} documents")
    columns = (BarColumn(), share, count, TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=not err.is_terminal)


def rated_bar() -> Progress:
    """Make a progress bar with a task's field `rate`, which shows on a terminal only and stays there."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=not err.is_terminal)


def emit(content: bytes) -> None:
    """Write bytes to standard output and flush them, so that a closed pipe is noticed here rather than at exit."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def emit_json(value: Any) -> None:
    """Write indented JSON to standard output."""
    emit(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def one_line(text: str, limit: int) -> str:
    """Return text of a document as one short line without control characters."""
    words = " ".join(text[: 4 * limit].split())
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
