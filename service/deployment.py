"""Composition root: builds the running service from a config, for the server, the command line and tests."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

from service.collections.embedded import EmbeddedEngine
from service.collections.service import CollectionService
from service.config import Config
from service.cores import cores
from service.doctor.examinations import Examinations
from service.embedding.models import Models
from service.embedding.token_ids import Read, reader
from service.encoder.runtimes.machine import threads
from service.process import prepare_process

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployment:
    """The served models, the collections embedded with them, and the examinations of them."""

    config: Config
    models: Models
    collections: CollectionService
    examinations: Examinations
    token_ids: Read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish pending writes, close the store and stop the queues of the encoders."""
        self.collections.close()
        self.models.close()


def open_deployment(config: Config) -> Deployment:
    """Load the models and open the store.

    Raises:
        ServiceError: a model cannot be served as configured, or the store cannot be opened.
    """
    prepare_process(threads(config.runtime))
    token_ids = reader(config.server.token_ids)
    engine = EmbeddedEngine(config.store.path)  # before the models, as it fails fast
    logger.info("this process may use %s; runtime.threads is %s", cores(), config.runtime.threads)
    try:
        models = Models(config)
    except BaseException:
        engine.close()
        raise
    return Deployment(config, models, CollectionService(models, engine), Examinations(models), token_ids)
