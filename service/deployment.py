"""What the routes work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from service.collections import Collections
from service.collections.service import Search
from service.config import Config
from service.doctor.examinations import Examinations
from service.embedding.models import Models
from service.errors import InvalidInput, TooLarge
from service.process import prepare_process

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """The models of a deployment and the collections over them."""

    config: Config
    models: Models
    search: Search
    examinations: Examinations

    def check_count(self, count: int, field: str) -> None:
        """Refuse an empty list, and one that is longer than this deployment takes.

        Raises:
            InvalidInput: nothing was sent.
            TooLarge: more than `server.max_texts`.

        """
        limit = self.config.server.max_texts
        if count == 0:
            raise InvalidInput(f"{field} is empty; send at least one.", where=field)
        if count > limit:
            raise TooLarge(
                f"{field} holds {count} and one request takes {limit} (server.max_texts); send them in parts.",
                where=field,
                limit=limit,
            )


def open_service(config: Config) -> Service:
    """Load the models and open the store.

    Raises:
        ServiceError: a model cannot be served as configured.
        CollectionError: the store cannot be opened.

    """
    prepare_process()
    collections = Collections(config.store.path)  # first, for it fails fast
    try:
        models = Models(config)
    except BaseException:
        collections.close()
        raise
    return Service(config, models, Search(models, collections), Examinations(models))


async def _of(request: Request) -> Service:  # FastAPI would run a plain function on another thread
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_of)]
