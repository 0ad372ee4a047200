"""`millpond serve`."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.cli.console import err
from service.cli.listening import address_of, bound, refuse_exposure, run
from service.cli.tls import server_context
from service.config import Config, load_config, require_file
from service.observation import logs

logger = logging.getLogger(__name__)


def serve(
    config: Annotated[Path, typer.Option("--config", "-c", help="The deployment's YAML file.")] = Path(
        "configs/mean.yaml"
    ),
    host: Annotated[str | None, typer.Option(help="Overrides server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides server.port; 0 takes a free one.")] = None,
    store: Annotated[Path | None, typer.Option(help="Overrides store.path.")] = None,
) -> None:
    """Serve the models of a config over HTTP."""
    overrides = {"server.host": host, "server.port": port, "store.path": str(store) if store else None}
    read = partial(load_config, config, overrides=overrides)
    settings = read()

    def read_again() -> Config:
        require_file(config)  # the first time it may be a pipe, which is empty now, or would be waited for
        return read()

    tls = server_context(settings.tls)
    # Bound first, so that an address in use is reported before minutes of loading models.
    with bound(settings.server.host, settings.server.port) as listener:
        refuse_exposure(settings, listener)
        logs.configure(settings.server.log_format, settings.server.log_level)
        # Nothing is under way yet. Without a handler, process 1 of a container would ignore SIGTERM.
        for sent, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
            signal.signal(sent, partial(_end, status))
        say = err.print if settings.server.log_format == "console" else logger.info
        from service.api import create_app
        from service.api.server import Server
        from service.api.tracing import traces
        from service.deployment import open_deployment
        from service.process import open_many_files

        observers = traces(os.environ)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the config has just been read
        open_many_files()
        served = open_deployment(settings, read_again)
        for name, model in served.models:
            poolings = {route: each.recipe.pooler.spec for route, each in model.routes.items()}
            pooling = ", ".join(f"{route} {each}" for route, each in poolings.items()) or model.recipe.pooler.spec
            say(f"model {name}: {pooling}, {model.dim} dimensions, fingerprint {model.fingerprint}")
        for name, reranker in served.rerankers:
            activation = type(reranker.recipe.activation).__name__
            say(f"reranker {name}: {', '.join(reranker.recipe.labels)}, {activation}")
        for name, sparse in served.sparse:
            declared = sparse.recipe.declared
            say(f"sparse model {name}: {declared.strategy} of {declared.activation}, {sparse.dim} tokens")
        address = address_of(settings, listener)
        say(f"Millpond serves at {address}, its documentation at {address}/docs. Ctrl-C stops it.")

        run(Server(create_app(served, *observers), tls), listener, address)


def _end(status: int, *_: object) -> NoReturn:
    os._exit(status)
