"""The address that a service listens on: bound before models are loaded, and not open to others by accident."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from service.cli.console import Failure
from service.config import Config

if TYPE_CHECKING:
    from service.api.server import Server


def address_of(settings: Config, listener: socket.socket) -> str:
    """Return the URL of a service that listens there."""
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    scheme = "https" if settings.tls.certfile else "http"
    return f"{scheme}://{host}:{listener.getsockname()[1]}{settings.server.root_path}"


def refuse_exposure(settings: Config, listener: socket.socket) -> None:
    """Refuse to serve without keys where other machines can reach the service, unless the config insists.

    Raises:
        Failure: they can, and there are no keys.
    """
    access = settings.access
    if access.needs_key or access.open_to_all or ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback:
        return
    raise Failure(
        f"other machines reach the service at {settings.server.host} (server.host), and it has no keys: whoever can "
        "would read, change and delete everything. Make a key with `millpond keys new NAME --file keys.yaml` and "
        "name the file as access.keys_file. If everybody is meant to, say access.open_to_all: true.",
        2,
    )


def run(server: Server, listener: socket.socket, url: str) -> None:
    """Serve until the process is told to end, and what is under way is answered.

    Raises:
        Failure: the server does not start.
    """
    # After its shutdown uvicorn raises the signal that it caught again, which has no further purpose.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise Failure(f"the service could not be started at {url}; see above.")


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address but not listening, so that no client connects before models are loaded.

    Raises:
        Failure: it cannot be had.
    """
    try:
        # A name such as localhost can have IPv4 and IPv6 addresses; some clients support only IPv4.
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = min(addresses, key=lambda info: info[0])
        with ExitStack() as unless_bound:
            listener = unless_bound.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            unless_bound.pop_all()
    except OSError as error:
        raise Failure(
            f"cannot serve at {host}, port {port}: {error.strerror or error}. Stop what runs there, or choose "
            "another address with --port and --host (server.port, server.host).",
            2,
        ) from None
    return listener
