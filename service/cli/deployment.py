"""Opens a deployment inside this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.cli.console import Failure
from service.collections.errors import CollectionError
from service.config import Config
from service.deployment import Service, open_service


def open_deployment(settings: Config) -> Service:
    """Load the models and open the store.

    Raises:
        Failure: the store cannot be opened.
        ServiceError: a model cannot be served as configured.

    """
    try:
        return open_service(settings)
    except CollectionError as error:
        raise Failure(str(error), 2) from None


@contextmanager
def deployment(settings: Config) -> Iterator[Service]:
    """A service that is closed in the end, whatever ends it: its threads must not outlive the command."""
    service = open_deployment(settings)
    try:
        yield service
    finally:
        service.search.close()
        service.models.close()
