"""A fleet without Ray: replicas of a deployment in this process, asked in turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from prometheus_client.metrics_core import Metric

from service.access import Keyring
from service.cluster.messages import Answered, Asked
from service.cluster.replica import Replica
from service.cluster.settings import config_of_replica
from service.config import Config
from service.deployment import Reloaded


class LocalFleet:
    """Replicas, each with the models loaded."""

    def __init__(self, config: Config, replicas: int = 2) -> None:
        self.config = config
        self.keys = Keyring(config.access)
        self.replicas = [Replica(config_of_replica(config)) for _ in range(replicas)]
        self.asked: list[Asked] = []
        self._turns = cycle(self.replicas)
        self.encoders = self

    pause = 1

    async def answer(self, asked: Asked) -> Answered:
        """Have the next replica answer."""
        self.asked.append(asked)
        return await next(self._turns).answer(asked)

    def metrics(self) -> Sequence[tuple[str, Sequence[Metric]]]:
        """Return what each tells."""
        return [(f"r{number}", replica.metrics()) for number, replica in enumerate(self.replicas)]

    async def reread(self) -> Reloaded:
        """Follow nothing."""
        return Reloaded([], [], [])

    def close(self) -> None:
        """Replicas are closed by `end`: an application is made of a fleet more than once here."""

    def end(self) -> None:
        """Close the replicas."""
        for replica in self.replicas:
            replica.close()
