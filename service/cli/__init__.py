"""The command line. Each command has a module, which imports slow packages only when the command runs."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Final

import typer

from service import __version__, environment
from service.cli import (
    backup,
    collections,
    compact,
    config,
    copy,
    doctor,
    embed,
    embed_dataset,
    evaluate,
    explain,
    export,
    index,
    keys,
    poolings,
    quantize,
    reindex,
    search,
    serve,
    stored_documents,
    train,
)
from service.cli.console import Failure, report, say
from service.cli.texts import TextCommand
from service.config import Config
from service.errors import ServiceError
from service.process import prepare_process

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"millpond {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sentence embeddings and semantic search in which pooling is a visible, verified choice."""
    if "--help" not in sys.argv:
        environment.check(os.environ, Config)


app.command()(serve.serve)
app.command(cls=TextCommand)(embed.embed)
app.command(cls=embed_dataset.DatasetCommand)(embed_dataset.embed_dataset)
app.command()(index.index)
app.command(cls=TextCommand)(search.search)
app.command(cls=TextCommand)(explain.explain)
app.command()(reindex.reindex)
app.add_typer(stored_documents.app, name="documents")
app.add_typer(collections.app, name="collections")
app.command()(export.export)
app.command()(copy.copy)
app.command()(compact.compact)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(poolings.poolings)
app.command()(doctor.doctor)
app.command()(evaluate.evaluate)
app.command()(quantize.quantize)
app.command()(train.train)
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line; an error is one message and an exit status.

    0: done; 1: a request failed; 2: usage, a file or the configuration is at fault; 130: interrupted.
    """
    prepare_process()
    try:
        app()
    except (Failure, ServiceError) as error:
        report(error)
        raise SystemExit(error.exit_status if isinstance(error, Failure) else 2) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        report(Failure(f"{error.filename or 'the output'}: {error.strerror}. Free some space and run it again."))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        raise SystemExit(1) from None
