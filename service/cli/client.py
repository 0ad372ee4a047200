"""A client for a service over HTTP or a deployment inside this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import orjson
from rich.table import Column, Table

from service.cli.console import Failure, warn
from service.cli.wording import in_options, too_long
from service.config import load_config
from service.errors import FingerprintMismatch, InvalidFilter, Place, TooLong

_MAX_WAIT: Final = 60
"""Seconds that a request is retried for while the service is busy."""
_BUSY: Final = (429, 503)
_LONGEST_PAUSE: Final = 30
_IN_FLIGHT: Final = 2
_TIMEOUT: Final = httpx.Timeout(10, read=600)  # a batch queued behind many others takes minutes
_FLAGS: Final = {
    **{field: f"--{field}" for field in ("chunking", "dimension", "dimensions", "diversity", "filter", "limit")},
    **{field: f"--{field}" for field in ("merge", "mode", "model", "pooling", "replace", "rerank", "similarity")},
    **{"prompt_name": "--prompt-name", "score_threshold": "--score-threshold", "weights": "--weights", "k": "-k"},
}
"""The flags of the fields of requests."""
_LOCAL: Final = {"localhost", "127.0.0.1", "::1"}

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


class Refused(Failure):
    """The service responded with an error; `problem` is its problem document, empty if it sent none."""

    def __init__(self, url: str, answer: httpx.Response) -> None:
        self.status = answer.status_code
        self.problem = _problem(answer)
        self.without_tokens: list[int] = self.problem.get("without_tokens", [])
        """Which texts or documents of the request the model knows no token of."""
        unexpected = f"{url} answered {self.status}, and not as Millpond does. Is --url right? {answer.text[:200]!r}"
        table = None
        message = in_options(str(self.problem.get("detail", unexpected)))
        if self.code == FingerprintMismatch.code and "differences" in self.problem:
            name = self.problem.get("collection")
            message = (
                f"collection {name!r} holds vectors that the service would no longer give, and the two cannot be "
                f"compared. `millpond reindex {name}` re-embeds it from its stored text; or serve the model as "
                "it was."
            )
            table = _comparison(self.problem["differences"])
        field = "filter" if self.code == InvalidFilter.code else self.place.field if self.place else ""
        if flag := _FLAGS.get(field):
            message = message.replace(field, flag, 1) if message.startswith(field) else f"{flag}: {message}"
        super().__init__(message, table=table)

    @property
    def code(self) -> str:
        """The kind of error, empty if unknown."""
        return str(self.problem.get("code", ""))

    @property
    def place(self) -> Place | None:
        """The part of the request at fault, if known."""
        place = self.problem.get("place")
        if not isinstance(place, dict) or "field" not in place:
            return None
        return Place(place["field"], place.get("index"), place.get("span"), self.problem.get("where"))

    def about(self, name: str) -> str:
        """Return the message in terms of the command line, where the place at fault is called `name`."""
        if self.code == TooLong.code and "length" in self.problem and " tokens " in str(self):
            return too_long(name, self.problem["length"], self.problem["limit"])
        return str(self).replace(str(self.place), name, 1) if self.place else str(self)


class Client:
    """A client that waits for a busy service and turns every failure into one message.

    `ask` raises `Refused` if the service responds with an error, `Failure` if it does not respond.
    """

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the JSON of the response."""
        waited = 0.0
        while (answer := await self._send(method, path, body)).status_code in _BUSY and waited < _MAX_WAIT:
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

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """Yield the lines of a response of any length, as they come."""
        with self._explained():
            async with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise Refused(self._url, answer)
                rest = b""
                async for part in answer.aiter_bytes():
                    *lines, rest = (rest + part).split(b"\n")  # at no other character, as texts may hold those
                    for line in lines:
                        yield line

    async def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        try:
            content = None if body is None else orjson.dumps(body)
        except TypeError as error:  # Python decodes invalid UTF-8 in arguments to lone surrogates
            raise Failure(f"cannot be sent: {error}. Give text in valid UTF-8.", 2) from None
        with self._explained():
            return await self._http.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
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


@dataclass(frozen=True)
class Service:
    """What a command sends requests to: the service at a URL, or the deployment of a config, inside this process."""

    url: str
    config: Path | None
    api_key: str | None


@asynccontextmanager
async def connect(service: Service, *, stores: bool = True) -> AsyncIterator[Client]:
    """Yield a client of a service.

    A deployment in this process opens its store only if the requests need it (`stores`), else a temporary one.

    Raises:
        Failure: the URL is invalid.
        ServiceError: the deployment cannot be started.
    """
    url = service.url
    if service.config is None:
        headers = key_header(service.api_key)
        async with httpx.AsyncClient(
            base_url=parse_url(url), headers=headers, timeout=_TIMEOUT, trust_env=uses_proxy(url)
        ) as http:
            yield Client(http, url)
        return
    from service.api import create_app
    from service.deployment import open_deployment

    with ExitStack() as stack:
        store = None if stores else stack.enter_context(TemporaryDirectory(prefix="millpond-"))
        overrides = {"store.path": store, "store.engine": None if stores else "embedded"}
        settings = load_config(service.config, overrides=overrides)
        served = stack.enter_context(open_deployment(settings.unexposed()))
        transport = httpx.ASGITransport(create_app(served), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://millpond", timeout=None) as http:
            yield Client(http, str(service.config))


def ask_once(service: Service, path: str, body: Any, names: Mapping[str, str], *, stores: bool = True) -> Any:
    """Send one POST request to what `connect` finds; errors call the fields of the body by their `names`."""
    for field, name in names.items():
        check_text(body.get(field) or "", name)

    async def ask() -> Any:
        async with connect(service, stores=stores) as client:
            try:
                return await client.ask("POST", path, body)
            except Refused as error:
                if error.place is None or error.place.field not in names:
                    raise
                raise Failure(error.about(names[error.place.field])) from None

    return asyncio.run(ask())


async def unknown_tokens(client: Client, model: str | None) -> int:
    """Return how many unknown tokens a model has read so far, the default one for None; 0 where none is told."""
    try:
        info = await client.ask("GET", "/info")
        count: int = info["models"][model or info["default_model"]]["unknown_tokens"]
    except (Refused, LookupError, TypeError):
        return 0
    return count


def warn_about_unknown(tokens: int) -> None:
    """Warn of unknown tokens, if there were any."""
    if tokens > 0:
        warn(
            f"{tokens} words or characters are unknown to the model and were read as one and the same token: words "
            "with more characters than its tokenizer takes (100, as a rule), or characters that it has no token for."
        )


def check_text(text: str, name: str) -> None:
    """Raise `Failure` if an argument was not valid UTF-8, which Python decodes to halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Failure(f"{name} is not valid UTF-8 at character {error.start + 1}. Give text in UTF-8.", 2) from None


async def pipelined(
    batches: Iterable[Batch], send: Callable[[Batch], Awaitable[Answer]]
) -> AsyncIterator[tuple[Batch, Answer]]:
    """Yield batches with their answers, in order, with a further request in flight to keep the service busy."""
    left = iter(batches)
    pending: deque[tuple[Batch, asyncio.Future[Answer]]] = deque()
    try:
        while True:
            for batch in islice(left, _IN_FLIGHT - len(pending)):
                pending.append((batch, asyncio.ensure_future(send(batch))))
            if not pending:
                return
            first, answer = pending[0]
            yield first, await answer
            pending.popleft()
    finally:
        for _, task in pending:
            task.cancel()
        await asyncio.gather(*(task for _, task in pending), return_exceptions=True)


async def without_empty(
    items: Sequence[Item], ask: Callable[[Sequence[Item]], Awaitable[Answer]]
) -> tuple[Answer | None, list[Item]]:
    """Ask with items, and again without those of whose text the model knows no token, such as invisible characters.

    Returns the answer, None if no item was left, and the items that were left out.
    """
    left_out: list[Item] = []
    while items:
        try:
            return await ask(items), left_out
        except Refused as error:
            if not (places := {place for place in error.without_tokens if place is not None}):
                raise
        left_out += [item for place, item in enumerate(items) if place in places]
        items = [item for place, item in enumerate(items) if place not in places]
    return None, left_out


def ask_all(service: Service, *requests: tuple[str, str, Any]) -> list[Any]:
    """Send requests of (method, path, body), one after the other, to what `connect` finds; return the answers."""

    async def ask() -> list[Any]:
        async with connect(service) as client:
            return [await client.ask(*request) for request in requests]

    return asyncio.run(ask())


def collection_path(name: str) -> str:
    """Return the route of a collection; raises `Failure` for a name that cannot be part of a URL."""
    if "/" in name or not name.strip("."):
        raise Failure(
            f"collection {name!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - and begins with a "
            "letter or a digit.",
            2,
        )
    return f"/collections/{quote(name, safe='')}"


def _comparison(differences: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = (Column(header, overflow="fold") for header in ("", "stored", "served now"))
    table = Table(*columns, box=None, pad_edge=False)
    for key, sides in differences.items():
        table.add_row(key, _to_text(sides["stored"]), _to_text(sides["served"]))
    return table


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) and value else orjson.dumps(value).decode()


def parse_url(url: str) -> httpx.URL:
    """Parse a URL; raises `Failure` if it is invalid."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Failure(f"--url {url!r}: {error}. Write it as http://127.0.0.1:8000.", 2) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Failure(f"--url {url!r}: must begin with http:// or https://, as http://127.0.0.1:8000 does.", 2)
    return parsed


def key_header(api_key: str | None) -> dict[str, str]:
    """Return the header that shows a key; raises `Failure` for one that no header can hold."""
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable():
        raise Failure("--api-key: a key has printable ASCII characters alone. Copy it again.", 2)
    return {"authorization": f"Bearer {api_key}"}


def uses_proxy(url: str) -> bool:
    """Return whether the proxy settings of the environment apply; no proxy reaches the services of this machine."""
    return httpx.URL(url).host not in _LOCAL


def _pause(retry_after: str) -> float:
    # The header may be missing, or from a proxy a date; wait for a second then.
    return min(max(int(retry_after), 1), _LONGEST_PAUSE) if retry_after.isdecimal() else 1


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
