"""The application behind a port, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from ssl import SSLContext
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.api.connections import Connection
from service.api.middleware.open_requests import OpenRequests
from service.api.serving import Serving
from service.errors import ConfigError

logger = logging.getLogger(__name__)

CUT_OFF: Final = 3
"""Exit status where not everything had ended within `server.shutdown_timeout`."""
_LAST: Final = 4.0
"""Seconds at the end of `server.shutdown_timeout` in which what still hangs is ended; a quarter of a short one."""
_POLL: Final = 0.05


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or Ctrl-C; SIGHUP reloads.

    A stop is a drain: `/ready` tells it and further requests are refused, until those under way are done. Those that
    are not in time are ended.

    Args:
        app: the application.
        tls: for HTTPS; None for plain HTTP.
    """

    def __init__(self, app: FastAPI, tls: SSLContext | None = None) -> None:
        self._served: Serving = app.state.deployment
        super().__init__(
            uvicorn.Config(
                app,
                loop="auto",
                http=Connection,
                ws="none",
                access_log=False,
                log_config=None,
                log_level="warning",
                timeout_keep_alive=self._served.config.server.keep_alive,
                ssl_context_factory=(lambda *_: tls) if tls else None,
                timeout_graceful_shutdown=1,  # `_drain` has waited for all that can be waited for
            )
        )
        self._requests: OpenRequests = app.state.requests
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._begin_to_reload)
        await super().startup(sockets)

    def _begin_to_reload(self) -> None:
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        """Read the config again; what is wrong with it is logged."""
        try:
            await self._served.reread()
        except ConfigError as error:
            logger.error("the config is served as it was: %s", error.detail)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second Ctrl-C, at once."""
        self._requests.drain()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop to listen and close the deployment."""
        timeout = self._served.config.server.shutdown_timeout
        watchdog = threading.Timer(timeout, _cut_off, (timeout,))
        watchdog.daemon = True
        watchdog.start()
        await self._drain(timeout)
        await super().shutdown(sockets)

    async def _drain(self, timeout: float) -> None:
        """Wait until no request is under way; end those that are left when the time is nearly over."""
        last = min(_LAST, timeout / 4)
        if not await self._done_within(timeout - last):
            logger.warning("%d requests are not done after %.1f s and are ended", len(self._requests), timeout - last)
            closing = asyncio.get_running_loop().run_in_executor(None, self._served.encoders.close)
            self._requests.end()
            await self._done_within(last / 2)
            closing.cancel()

    async def _done_within(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._requests and loop.time() < end and not self.force_exit:
            await asyncio.sleep(_POLL)
        return not self._requests


def _cut_off(timeout: float) -> None:
    """End the process; what was acknowledged is stored, as after a power cut."""
    logger.error("not everything had ended after %.1f s (server.shutdown_timeout); the process ends now", timeout)
    os._exit(CUT_OFF)
