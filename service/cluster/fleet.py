"""The replicas on Ray Serve as the edge has them: asked, asked again where one dies, and replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from ray.exceptions import ObjectLostError, RayActorError, RayError
from ray.serve.exceptions import RayServeException

from service.access import Keyring
from service.cluster.messages import Answered, Asked
from service.cluster.settings import config_of_replica, require_clusterable
from service.cluster.watching import Watch, none
from service.config import Config, reloaded
from service.deadline import in_time
from service.deployment import Reloaded
from service.errors import ConfigError, Unavailable
from service.observation import logs

logger = logging.getLogger(__name__)

_ROLLED: Final = ("models", "rerankers", "sparse", "runtime", "batching", "cluster")
"""Sections of a config that are followed by replacing replicas."""
_TRIES: Final = 4
"""Replicas that a request is sent to, one after the other as they die."""
_METRICS_WITHIN: Final = 5.0


class FleetOnRay:
    """The replicas that a handle of Ray Serve leads to.

    Args:
        config: what they serve.
        handle: leads to them.
        keys: those of clients.
        read: reads the config again, where it can be.
        roll: replaces replicas by those of another config, as `deploy` does; None where that is done elsewhere.
    """

    def __init__(
        self,
        config: Config,
        handle: Any,
        keys: Keyring,
        *,
        read: Callable[[], Config] | None = None,
        roll: Callable[[Config], Any] | None = None,
    ) -> None:
        self.config = config
        self.keys = keys
        self.encoders = _Queues()
        self._handle = handle
        self._read, self._roll = read, roll
        self._rereading = asyncio.Lock()
        self._watch = Watch(handle.app_name, handle.deployment_name)

    async def answer(self, asked: Asked) -> Answered:
        """Have a request answered by one replica, by another one where that dies."""
        for _ in range(_TRIES):
            self.encoders.require_open()
            self._watch.require_replicas()
            try:
                found = await in_time(self._once(asked))
            except (RayActorError, ObjectLostError) as error:
                logger.warning("request %s is sent to another replica: %s", asked.id, type(error).__name__)
                continue
            except RayServeException as error:
                logger.warning("request %s cannot be sent: %s", asked.id, error)
                break
            self.encoders.follow(found)
            return found
        raise Unavailable("replicas end as they are asked; send the request again in a moment.", retry_after=5)

    async def _once(self, asked: Asked) -> Answered:
        response = self._handle.answer.remote(asked)
        task = asyncio.ensure_future(_result(response))
        stop = asyncio.ensure_future(self._watch.lost.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise none()
            return task.result()
        finally:
            stop.cancel()
            if not task.done():
                response.cancel()
                task.add_done_callback(lambda given_up: given_up.cancelled() or given_up.exception())

    def metrics(self) -> Sequence[tuple[str, Sequence[Metric]]]:
        """Return what each replica tells; none where they do not answer."""
        try:
            found = self._handle.broadcast("told").results(timeout_s=_METRICS_WITHIN, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError) as error:
            logger.warning("replicas do not tell of themselves: %s", error)
            return []
        return [each for each in found if isinstance(each, tuple)]

    async def reread(self) -> Reloaded:
        """Read the config again and follow it; replicas are replaced one after the other where they are concerned.

        Raises:
            ConfigError: it, or the file of keys, is at fault, or what it names cannot be served; nothing has changed.
        """
        async with self._rereading:
            read = await asyncio.to_thread(self._read) if self._read else self.config
            require_clusterable(read)
            listed = await asyncio.to_thread(self.keys.read) if self.config.access.needs_key else None
            followed, changed, restart = reloaded(self.config, read)
            if self._roll is not None:
                rolled = {name: getattr(read, name) for name in _ROLLED}
                changed += [name for name in restart if name.partition(".")[0] in _ROLLED]
                restart = [name for name in restart if name.partition(".")[0] not in _ROLLED]
                followed = followed.model_copy(update=rolled)
                if config_of_replica(followed) != config_of_replica(self.config):
                    await self._replace(self._roll, followed)
            self.config = followed
            keys = self.keys.follow(listed) if listed else []
            logs.set_level(followed.server.log_level)
            logger.info("the config was read again; changed: %s", ", ".join(changed) or "nothing")
            if restart:
                logger.warning("a change of %s needs a restart", ", ".join(restart))
            return Reloaded(changed, restart, keys)

    async def _replace(self, roll: Callable[[Config], Any], config: Config) -> None:
        """Replace the replicas; where others do not start, those of the config so far are what is wanted again."""
        began = time.monotonic()
        try:
            await asyncio.to_thread(roll, config)
        except ConfigError:
            await asyncio.to_thread(roll, self.config)
            raise
        logger.info("all replicas were replaced in %.1f s", time.monotonic() - began)

    def close(self) -> None:
        """Look no more after the replicas."""
        self._watch.close()


async def _result(response: Any) -> Answered:
    found: Answered = await response
    return found


class _Queues:
    """The queues of all replicas, as far as their answers tell of them."""

    def __init__(self) -> None:
        self.pause = 1
        """After how many seconds a client that is refused may come back: what a replica has said last."""
        self._closed = False

    def follow(self, answered: Answered) -> None:
        """Note what a refusal says."""
        if answered.status == 503:
            for name, value in answered.headers:
                if name.lower() == b"retry-after" and value.isdigit():
                    self.pause = int(value)

    def require_open(self) -> None:
        """Raise `Unavailable` once they are closed."""
        if self._closed:
            raise Unavailable("the service is stopping; send the request again in a moment.", retry_after=5)

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True
