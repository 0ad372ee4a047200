"""The command line: millpond serve."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.collections.errors import CollectionError
from service.config import load_config
from service.errors import ServiceError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
err = Console(stderr=True, highlight=False, soft_wrap=True)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The deployment's YAML file.")]


@app.callback()
def _root() -> None:
    """Sentence embeddings and semantic search in which pooling is a visible, verified choice."""


@app.command()
def serve(
    config: ConfigPath = Path("configs/mean.yaml"),
    host: Annotated[str | None, typer.Option(help="Overrides server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides server.port.")] = None,
    store: Annotated[Path | None, typer.Option(help="Overrides store.path.")] = None,
) -> None:
    """Serve the models of a config over HTTP."""
    settings = load_config(
        config,
        overrides={"server.host": host, "server.port": port, "store.path": str(store) if store else None},
    )
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
    import uvicorn

    from service.api import create_app
    from service.api.service import open_service

    service = open_service(settings)
    for name, model in service.models:
        err.print(f"model {name}: {model.pooler.spec}, {model.dim} dimensions, fingerprint {model.fingerprint}")
    address = f"http://{settings.server.host}:{settings.server.port}"
    err.print(f"Millpond serves at {address}, its documentation at {address}/docs. Ctrl-C stops it.")
    uvicorn.run(
        create_app(service),
        host=settings.server.host,
        port=settings.server.port,
        loop="auto",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


def main() -> None:
    """Run the command line; an error that the user can mend is one message and exit status 2."""
    try:
        app()
    except (ServiceError, CollectionError) as error:
        err.print(f"[red]error:[/red] {error}")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
