"""A replica: the application of one machine without its edge, called with messages instead of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp, Message, Scope

from service.api import create_app
from service.api.metrics import DeploymentCollector, RequestFigures
from service.api.middleware.observe import UNKNOWN
from service.api.middleware.open_requests import TrackRequests
from service.api.middleware.unknown import IgnoreUnknownFields
from service.cluster.messages import Answered, Asked, Noted
from service.collections import Engine
from service.collections.absent import AbsentEngine
from service.config import Config, StoreConfig
from service.deployment import open_deployment, open_engine
from service.encoder.metering import metered
from service.observation import Observed, Phase, observing
from service.process import freeze_and_trim


class Replica:
    """Loads the models of a config, and answers requests as `millpond serve` would, over a server's store or none.

    What concerns connections and keys is done at the edge. Bodies that it sends are whole and not compressed.

    Args:
        config: as `config_of_replica` gives it.

    Raises:
        ServiceError: a model cannot be served as configured.
    """

    def __init__(self, config: Config) -> None:
        self._served = open_deployment(config, engine_of=shared_engine)
        self._served.encoders.warm_up()
        app = create_app(self._served)
        inner: ASGIApp = app.inner
        if config.server.unknown_fields == "ignore":
            inner = IgnoreUnknownFields(inner)
        self._app = TrackRequests(inner, app.state.requests)
        self._figures: RequestFigures = app.state.figures  # which `/info` tells
        self._metrics = DeploymentCollector(self._served)
        freeze_and_trim()

    async def answer(self, asked: Asked) -> Answered:
        """Answer a request; what is wrong with it is an answer too. Cancelled, it drops what has not run yet."""
        observed = Observed(asked.id, asked.method, asked.headers)
        exchange = _Exchange(asked)
        paid = _Meter()
        scope = exchange.scope()
        with observing(observed), metered(paid.count):
            await self._app(scope, exchange.receive, exchange.send)
        observed.end()
        observed.status, observed.route = exchange.status, getattr(scope.get("route"), "path_format", UNKNOWN)
        self._figures(observed)
        phases = [
            Phase(name, begun - observed.begun, ended - observed.begun, dict(attributes))
            for name, begun, ended, attributes in observed.phases
        ]
        noted = Noted(observed.texts, observed.characters, observed.tokens, paid.tokens, phases)
        return Answered(exchange.status, exchange.headers, b"".join(exchange.body), noted)

    @property
    def alive(self) -> bool:
        """Whether the queues of all encoders run."""
        return self._served.encoders.alive

    @property
    def queued_tokens(self) -> int:
        """How many tokens wait for its encoders."""
        return sum(encoder.batcher.queued[1] for encoder in self._served.encoders.values())

    def metrics(self) -> list[Metric]:
        """Return what it tells of its models and their work."""
        return list(self._metrics.collect())

    def close(self) -> None:
        """Stop the queues; what waits there fails."""
        self._served.close()


def shared_engine(config: StoreConfig) -> Engine:
    """Return what several replicas can keep documents in: a server, or nothing where one process has the store."""
    if config.engine == "embedded":
        return AbsentEngine()
    return open_engine(config)


class _Meter:
    def __init__(self) -> None:
        self.tokens = 0

    def count(self, tokens: int) -> None:
        self.tokens += tokens


class _Exchange:
    """A request and its response as an ASGI server would pass them on."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._received = False
        self.status = 500
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.body: list[bytes] = []

    def scope(self) -> Scope:
        asked = self._asked
        headers = [(name, value) for name, value in asked.headers if name != b"content-length"]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": asked.path,
            "raw_path": asked.path.encode(),
            "query_string": asked.query,
            "root_path": "",
            "headers": [*headers, (b"content-length", b"%d" % len(asked.body))],
            "client": None,
            "server": None,
            "state": {},
        }

    async def receive(self) -> Message:
        if self._received:
            await asyncio.Event().wait()  # the edge cancels the call when its client is gone
        self._received = True
        return {"type": "http.request", "body": self._asked.body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        else:
            self.body.append(bytes(message.get("body", b"")))
