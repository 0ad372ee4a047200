"""One client for both: a service over HTTP, and a deployment inside this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import orjson
from rich.table import Table

from service.cli.console import Failure
from service.config import load_config
from service.errors import FingerprintMismatch, Place, TooLong

PATIENCE: Final = 60
"""Seconds in all that a request waits for a service that answers 503."""
_LONGEST_PAUSE: Final = 30
_TIMEOUT: Final = httpx.Timeout(10, read=600)  # a batch behind many others takes minutes
_LOCAL: Final = {"localhost", "127.0.0.1", "::1"}

Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


class Refused(Failure):
    """The service answered with an error; `problem` is its problem document, empty where it sent none."""

    def __init__(self, url: str, answer: httpx.Response) -> None:
        self.status = answer.status_code
        self.problem = _problem(answer)
        strange = f"{url} answered {self.status}, and not as Millpond does. Is --url right? {answer.text[:200]!r}"
        table = None
        message = str(self.problem.get("detail", strange))
        if self.code == FingerprintMismatch.code and "differences" in self.problem:
            name = self.problem.get("collection")
            message = (
                f"collection {name!r} holds vectors that the service would no longer give, and the two cannot be "
                f"compared. `millpond reindex {name}` re-embeds it from its stored text; or serve the model as "
                "it was."
            )
            table = _both_sides(self.problem["differences"])
        super().__init__(message, table=table)

    @property
    def code(self) -> str:
        """The kind of error; empty where it is not said."""
        return str(self.problem.get("code", ""))

    @property
    def place(self) -> Place | None:
        """The part of the request at fault, where it is said."""
        place = self.problem.get("place")
        if not isinstance(place, dict) or "field" not in place:
            return None
        return Place(place["field"], place.get("index"), place.get("span"), self.problem.get("where"))

    def about(self, name: str) -> str:
        """Return the message in the words of the command line, `name` being what the user calls the place."""
        if self.code == TooLong.code and "length" in self.problem:
            return (
                f"{name} has {self.problem['length']} tokens and the model takes {self.problem['limit']}. Give "
                "--truncate to embed the beginning of such texts alone, or split the text."
            )
        return str(self).replace(str(self.place), name, 1) if self.place else str(self)


class Client:
    """Asks the service, waits where it says so, and turns every failure into one message.

    Raises, from `ask`: `Refused` where the service answers with an error, `Failure` where none answers.
    """

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; gives the answer's JSON."""
        waited = 0.0
        while (answer := await self._send(method, path, body)).status_code == 503 and waited < PATIENCE:
            pause = _pause(answer.headers.get("retry-after", ""))
            waited += pause
            await asyncio.sleep(pause)
        if not answer.is_success:
            raise Refused(self._url, answer)
        if answer.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            raise Refused(self._url, answer) from None

    async def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        try:
            content = None if body is None else orjson.dumps(body)
        except TypeError as error:  # arguments that are not UTF-8 come to Python as halves of surrogate pairs
            raise Failure(f"cannot be sent: {error}. Give text in valid UTF-8.", 2) from None
        try:
            return await self._http.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Failure(
                f"no service answers at {self._url} ({error or type(error).__name__}). Start one with "
                "`millpond serve`, name another with --url, or run a deployment inside the command with --config."
            ) from None
        except httpx.TransportError as error:
            raise Failure(
                f"the connection to {self._url} broke ({type(error).__name__}: {error}). See whether the service "
                "still runs, and run the command again."
            ) from None


@asynccontextmanager
async def connect(url: str, config: Path | None, *, store: Path | None = None) -> AsyncIterator[Client]:
    """A client of the service at `url`, or where `config` is given of that deployment, started in this process.

    Args:
        url: of a running service.
        config: a deployment's YAML file.
        store: overrides `store.path` of the config.

    Raises:
        Failure: the URL is none.
        ServiceError: the deployment cannot be started.

    """
    if config is None:
        async with httpx.AsyncClient(base_url=checked(url), timeout=_TIMEOUT, trust_env=proxied(url)) as http:
            yield Client(http, url)
        return
    from service.api import create_app
    from service.deployment import deployment

    settings = load_config(config, overrides={"store.path": str(store) if store else None})
    with deployment(settings) as served:
        transport = httpx.ASGITransport(create_app(served), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://millpond", timeout=None) as http:
            yield Client(http, str(config))


async def pipelined(
    batches: Iterable[Batch], send: Callable[[Batch], Awaitable[Answer]], in_flight: int = 2
) -> AsyncIterator[tuple[Batch, Answer]]:
    """Batches with their answers, in order, while the next requests are under way: the service is never idle."""
    pending: deque[tuple[Batch, asyncio.Future[Answer]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, asyncio.ensure_future(send(batch))))
            if len(pending) == in_flight:
                first, answer = pending[0]
                yield first, await answer
                pending.popleft()
        while pending:
            last, answer = pending[0]
            yield last, await answer
            pending.popleft()
    finally:
        for _, task in pending:
            task.cancel()
        await asyncio.gather(*(task for _, task in pending), return_exceptions=True)


def collection_path(name: str) -> str:
    """The route of a collection; raises `Failure` for a name that no URL can carry."""
    if "/" in name or not name.strip("."):
        raise Failure(
            f"collection {name!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - and begins with a "
            "letter or a digit.",
            2,
        )
    return f"/collections/{quote(name, safe='')}"


def _both_sides(differences: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "stored", "served now"):
        table.add_column(column, overflow="fold")
    for key, sides in differences.items():
        table.add_row(key, _plain(sides["stored"]), _plain(sides["served"]))
    return table


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else orjson.dumps(value).decode()


def checked(url: str) -> httpx.URL:
    """A URL that is one; raises `Failure` for what is not."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Failure(f"--url {url!r}: {error}. Write it as http://127.0.0.1:8000.", 2) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Failure(f"--url {url!r}: must begin with http:// or https://, as http://127.0.0.1:8000 does.", 2)
    return parsed


def proxied(url: str) -> bool:
    """Whether the environment's proxy settings apply; no proxy reaches this machine's own services."""
    return httpx.URL(url).host not in _LOCAL


def _pause(retry_after: str) -> float:
    # A proxy may answer with a date instead of seconds; then, as where nothing is said, a second.
    return min(max(int(retry_after), 1), _LONGEST_PAUSE) if retry_after.isdecimal() else 1


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
