"""A replica in an actor of Ray Serve."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from prometheus_client.metrics_core import Metric
from ray import serve

from service.cluster.messages import Answered, Asked
from service.cluster.replica import Replica
from service.cluster.scaling import QUEUED
from service.config import Config
from service.errors import ServiceError
from service.observation import logs

REFUSAL: Final = "MILLPOND-REFUSES"
"""Stands around what a replica says that does not start, since Ray Serve passes it on within a traceback."""


class ReplicaOnRay:
    """A `Replica` in an actor of Ray Serve.

    Args:
        config: as `config_of_replica` gives it.
        cwd: the working folder that relative paths of the config are from.
    """

    def __init__(self, config: Config, cwd: str) -> None:
        with suppress(OSError):
            os.chdir(cwd)
        logs.configure(config.server.log_format, config.server.log_level)
        self._name = serve.get_replica_context().replica_tag
        try:
            self._replica = Replica(config)
        except ServiceError as error:
            raise RuntimeError(f"<{REFUSAL}>{error}</{REFUSAL}>") from None

    async def answer(self, asked: Asked) -> Answered:
        """Answer a request."""
        return await self._replica.answer(asked)

    def told(self) -> tuple[str, list[Metric]]:
        """Return its name and what it tells of itself."""
        return self._name, self._replica.metrics()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the number of replicas is chosen by."""
        return {QUEUED: float(self._replica.queued_tokens)}

    def check_health(self) -> None:
        """Raise where it has to be replaced."""
        if not self._replica.alive:
            raise RuntimeError("an encoder's queue has stopped")

    def __del__(self) -> None:
        if replica := getattr(self, "_replica", None):
            replica.close()
