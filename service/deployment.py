"""Composition root: builds the running service from a config, for the server, the command line and tests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from service.access import Keyring, Listed
from service.collections import Engine
from service.collections.embedded import EmbeddedEngine
from service.collections.service import CollectionService
from service.config import Config, StoreConfig, reloaded
from service.cores import cores
from service.doctor.examinations import Examinations
from service.embedding.models import Models
from service.embedding.sparse import SparseModels
from service.embedding.token_ids import Read, reader
from service.encoder import Encoders
from service.encoder.runtimes.machine import threads
from service.observation.logs import set_level
from service.process import prepare_process
from service.ranking import Rerankers

if TYPE_CHECKING:
    from service.evaluation.running import Evaluations

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What another reading of the config came to: names of its keys, and of the API keys that are known now."""

    changed: list[str]
    restart: list[str]
    keys: list[str]


@dataclass(eq=False)
class Deployment:
    """The served models, rerankers and sparse models, collections and examinations of the first, and clients' keys.

    `config` changes when another one is reloaded. `read` reads it again from where it came; None where it came from
    nowhere.
    """

    config: Config
    models: Models
    rerankers: Rerankers
    sparse: SparseModels
    collections: CollectionService
    examinations: Examinations
    keys: Keyring
    token_ids: Read
    read: Callable[[], Config] | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _evaluations: Evaluations | None = field(default=None, init=False, repr=False)

    @property
    def encoders(self) -> Encoders:
        """All encoders, each once."""
        return Encoders(self.models.encoders | self.rerankers.encoders | self.sparse.encoders)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def evaluations(self) -> Evaluations:
        """Return what evaluates poolings; what that computes with is loaded when it is first asked for."""
        if self._evaluations is None:
            made = await asyncio.to_thread(_evaluations, self.models)
            self._evaluations = self._evaluations or made
        return self._evaluations

    async def end(self) -> None:
        """End examinations and evaluations under way, then close."""
        await self.examinations.close()
        if self._evaluations is not None:
            await self._evaluations.close()
        self.close()

    async def reread(self) -> Reloaded:
        """Read the config again and follow it. Files are read on a thread: a disk may be slow.

        Raises:
            ConfigError: it or the file of keys is at fault; nothing has changed.
        """
        async with self._reading:
            config = await asyncio.to_thread(self.read) if self.read else self.config
            keys = await asyncio.to_thread(self.keys.read) if self.config.access.needs_key else None
            return self._follow(config, keys)

    def reload(self, config: Config) -> Reloaded:
        """Follow another config as far as that needs no restart: limits, keys, and what is logged.

        Raises:
            ConfigError: the file of keys is at fault; nothing has changed.
        """
        return self._follow(config, self.keys.read() if self.config.access.needs_key else None)

    def _follow(self, config: Config, listed: Listed | None) -> Reloaded:
        keys = self.keys.follow(listed) if listed else []
        self.config, changed, restart = reloaded(self.config, config)
        self.encoders.limit(self.config.batching)
        set_level(self.config.server.log_level)
        logger.info("the config was read again; changed: %s", ", ".join(changed) or "nothing")
        if restart:
            logger.warning("a change of %s needs a restart", ", ".join(restart))
        return Reloaded(changed, restart, keys)

    def close(self) -> None:
        """Finish pending writes, close the store and stop the queues of the encoders."""
        self.collections.close()
        self.encoders.close()


def _evaluations(models: Models) -> Evaluations:
    from service.evaluation.running import Evaluations  # takes a second and some 80 MB: SciPy, scikit-learn

    return Evaluations(models)


def open_deployment(config: Config, read: Callable[[], Config] | None = None) -> Deployment:
    """Load the models and open the store.

    Args:
        config: what is served.
        read: reads it again, when it is to be reloaded.

    Raises:
        ServiceError: a model cannot be served as configured, or the store cannot be opened.
    """
    prepare_process(threads(config.runtime))
    keys = Keyring(config.access)
    token_ids = reader(config.server.token_ids)
    engine = open_engine(config.store)  # before the models, as it fails fast
    logger.info("this process may use %s; runtime.threads is %s", cores(), config.runtime.threads)
    with ExitStack() as unless_opened:
        unless_opened.callback(engine.close)
        models = Models(config)
        unless_opened.callback(models.close)
        rerankers = Rerankers(config)
        unless_opened.callback(rerankers.close)
        sparse = SparseModels(config)
        unless_opened.pop_all()
    collections = CollectionService(models, rerankers, engine)
    examinations = Examinations(models)
    return Deployment(config, models, rerankers, sparse, collections, examinations, keys, token_ids, read)


def open_engine(config: StoreConfig) -> Engine:
    """Open the engine that is chosen; no other is imported.

    Raises:
        ServiceError: the store cannot be opened, or another process has it open.
    """
    if config.engine == "embedded":
        return EmbeddedEngine(config.path)
    from service.collections.milvus import MilvusEngine

    return MilvusEngine(config.uri, config.token, config.database, config.timeout)
