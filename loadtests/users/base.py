"""What every user does with an answer: check it, wait where the service asks for it, and say what was wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import gevent
from locust import FastHttpUser
from locust.contrib.fasthttp import ResponseContextManager
from locust.exception import RescheduleTask, StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from loadtests.records import BACKPRESSURE

PAUSE_AFTER_FAILURE: Final = 1.0
"""Seconds. A service that is gone would otherwise be asked thousands of times a second."""

_NUMBERS: Final = count(1)


class Texts(NamedTuple):
    """What `loadtests.texts` has written."""

    sentences: list[str]
    questions: list[str]
    documents: dict[str, str]


class WrongAnswer(Exception):
    """The answer is not what was asked for; the message says how."""


def require(condition: bool, message: str) -> None:
    """Raise `WrongAnswer` unless the condition holds."""
    if not condition:
        raise WrongAnswer(message)


class ServiceUser(FastHttpUser):
    """A client that sends its next request once the last is answered; each has its own random choices."""

    abstract = True
    network_timeout = 120.0

    def on_start(self) -> None:
        """Know the deployment, as the command line describes it."""
        options = self.environment.parsed_options
        self.model: str = options.model
        self.dimension: int = options.dimension
        self.collection: str = options.collection
        self.texts = _read(options.texts)
        self.number = next(_NUMBERS)
        self.random = Random(self.number)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        name: str,
        check: Callable[[Any], None],
        texts: int = 0,
        status: int = 200,
    ) -> None:
        """Send a request, again for as long as the service says to come back later; check its answer.

        Args:
            method: of HTTP.
            path: under the service's URL.
            body: sent as JSON.
            name: the kind of request, under which it is counted.
            check: is given the answer's JSON (None where it has no body) and raises `WrongAnswer`.
            texts: how many it brings to be embedded.
            status: the only one that is right.

        Raises:
            RescheduleTask: the answer was wrong, which is counted by then; the task ends here.
            StopUser: it was refused, and its user is to end.

        """
        while (pause := self._try(method, path, body, name, check, texts, status)) is not None:
            if self._state == LOCUST_STATE_STOPPING:
                raise StopUser
            gevent.sleep(self.patience(pause))

    def patience(self, asked: float) -> float:
        """Return how many seconds it waits where it is asked to wait for so many."""
        return asked

    def _try(
        self,
        method: str,
        path: str,
        body: Any,
        name: str,
        check: Callable[[Any], None],
        texts: int,
        status: int,
    ) -> float | None:
        """Send a request once; gives the seconds to wait where it was refused for now."""
        with self._send(method, path, body, name, {"texts": texts}) as answer:
            pause = _asked_to_wait(answer)
            if pause is not None:
                # Renamed, so that Locust's own table does not mix the quick refusal with the answers.
                answer.request_meta["name"] = f"{name} (refused)"
                answer.request_meta["context"]["outcome"] = BACKPRESSURE
                answer.success()
                return pause
            try:
                _check(answer, status, check)
            except WrongAnswer as error:
                answer.failure(str(error))
            else:
                answer.success()
                return None
        gevent.sleep(PAUSE_AFTER_FAILURE)
        raise RescheduleTask

    def _send(self, method: str, path: str, body: Any, name: str, context: dict[str, Any]) -> ResponseContextManager:
        """Send a request. One that is still out when the time to finish is over counts as a failure."""
        started = time.time()
        try:
            return self.client.request(method, path, name=name, json=body, context=context, catch_response=True)
        except gevent.GreenletExit:
            if self._state != LOCUST_STATE_STOPPING:
                raise  # ended without time to finish
            seconds = time.time() - started
            self.environment.events.request.fire(
                request_type=method,
                name=name,
                response_time=1000 * seconds,
                response_length=0,
                response=None,
                context=context,
                exception=WrongAnswer(f"no answer in {seconds:.0f} s, when the run was over"),
            )
            raise


@cache
def _read(path: str) -> Texts:
    return Texts(**json.loads(Path(path).read_text(encoding="utf-8")))


def _asked_to_wait(answer: ResponseContextManager) -> float | None:
    """Seconds that the service asks to wait; None where it does not, or where waiting would hide a failure."""
    wait = answer.headers.get("retry-after") if answer.headers else None
    if answer.status_code not in (429, 503) or wait is None:
        return None
    if b"store-unavailable" in (answer.content or b""):  # not load: the disk is full, or the store is broken
        return None
    try:
        return max(float(str(wait)), 0.1)
    except ValueError:  # a date, which a proxy may give
        return 1.0


def _check(answer: ResponseContextManager, status: int, check: Callable[[Any], None]) -> None:
    if answer.status_code == 0:
        raise WrongAnswer(f"no answer: {getattr(answer, 'error', None)!r}")
    if answer.status_code != status:
        raise WrongAnswer(f"status {answer.status_code}, not {status}: {(answer.text or '')[:300]}")
    try:
        check(answer.json() if answer.content else None)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise WrongAnswer(f"not the shape of an answer: {error!r}: {(answer.text or '')[:200]}") from None
