"""`millpond cluster`."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from service.cli.console import Failure, err
from service.cli.listening import address_of, bound, refuse_exposure, run
from service.cli.tls import server_context
from service.config import Config, load_config, require_file
from service.observation import logs

logger = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, help="Serve on a Ray cluster.")
_INSTALL: Final = "`pip install 'millpond[ray]'`"
_OBJECTS: Final = 512 * 2**20
"""Bytes of memory in which a cluster on this machine passes on bodies; what is more goes to the disk."""


@app.callback()
def _cluster() -> None:
    """Serve on a Ray cluster."""


@app.command()
def serve(
    config: Annotated[Path, typer.Option("--config", "-c", help="The deployment's YAML file.")],
    host: Annotated[str | None, typer.Option(help="Overrides server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides server.port; 0 takes a free one.")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The Ray cluster: HOST:PORT, or auto for the one that runs here or that RAY_ADDRESS names; without "
            "it one is started on this machine."
        ),
    ] = None,
) -> None:
    """Serve the models of a config by replicas on Ray; this process is their edge, which speaks HTTP.

    The routes are those of `millpond serve`; collections take a Milvus server as store. SIGHUP or POST
    /admin/reload reads the config again, and replaces replicas one after the other where models, poolings or
    limits have changed.
    """
    read = partial(load_config, config, overrides={"server.host": host, "server.port": port})
    settings = read()
    ray = _require_ray()
    from service.cluster.settings import require_clusterable

    require_clusterable(settings)
    tls = server_context(settings.tls)
    with bound(settings.server.host, settings.server.port) as listener:
        refuse_exposure(settings, listener)
        logs.configure(settings.server.log_format, settings.server.log_level)
        say = err.print if settings.server.log_format == "console" else logger.info

        def read_again() -> Config:
            require_file(config)
            return read()

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with _connected(ray, address, settings):
            for sent, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
                signal.signal(sent, partial(_end, status))  # Ray has handlers of its own, which end at once
            from service.access import Keyring
            from service.api.server import Server
            from service.api.tracing import traces
            from service.cluster.deploying import deploy, withdraw
            from service.cluster.edge import Edge
            from service.cluster.fleet import FleetOnRay
            from service.process import open_many_files

            observers = traces(os.environ)
            open_many_files()
            keys = Keyring(settings.access)
            try:
                handle = deploy(settings)
                fleet = FleetOnRay(settings, handle, keys, read=read_again, roll=deploy)
                cluster = settings.cluster
                most = f" to {cluster.max_replicas}" if (cluster.max_replicas or 0) > cluster.replicas else ""
                say(f"{cluster.replicas}{most} replicas of {cluster.replica_cpus:g} CPUs on Ray")
                url = address_of(settings, listener)
                say(f"Millpond serves at {url}, its documentation at {url}/docs. Ctrl-C stops it.")
                run(Server(Edge(fleet, *observers), tls), listener, url)
            finally:
                withdraw()


def _require_ray() -> Any:
    """Return the package `ray` with `ray.serve`; raises `Failure` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would report to Ray's makers
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise Failure(
            f"`millpond cluster` takes Ray Serve, which is not installed ({error}). Install it: {_INSTALL}.", 2
        ) from None
    return ray


@contextmanager
def _connected(ray: Any, address: str | None, settings: Config) -> Iterator[None]:
    """Be connected to a cluster, or to one that is started here and ends with this process.

    Raises:
        Failure: none answers, or none starts.
    """
    from service.cli.datasets.on_ray import require_answer
    from service.cluster.settings import cpus_of_own_cluster

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # whose steps are in the files of Ray's session
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is None:
            ray.init(
                "local",
                num_cpus=cpus_of_own_cluster(settings),
                include_dashboard=False,
                object_store_memory=_OBJECTS,
                **quiet,
            )
        else:
            require_answer(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
            ray.init(address, **quiet)
        ray.serve.start(proxy_location="Disabled")  # HTTP is spoken here
    except Exception as error:  # which Ray raises itself where its processes take too long
        ray.shutdown()
        said = " ".join(str(error).split())[:300]
        if address is None:
            raise Failure(
                f"Ray does not start a cluster on this machine ({said}). Its logs are below /tmp/ray/session_latest, "
                "or where RAY_TMPDIR says."
            ) from None
        raise Failure(
            f"--address {address}: no Ray cluster answers ({said}). Start one with `ray start --head`, name its "
            "address, HOST:6379, or leave --address out to start one here."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _end(status: int, *_: object) -> NoReturn:
    raise SystemExit(status)
