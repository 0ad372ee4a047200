"""Endpoints: routes that give vectors, as Millpond, OpenAI or text-embeddings-inference (TEI) have them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import httpx
import numpy as np
import orjson

from service.arrays import Vectors
from service.errors import shortened

_ABSENT: Final = {404, 405, 501}
_PROBE: Final = "Is there anybody?"


class EndpointError(Exception):
    """A server gives no vectors; the message says why and what would be right."""


class _Refused(EndpointError):
    """The server answered without vectors; `absent` if the route may not exist."""

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


class Endpoint(ABC):
    """A route that gives vectors.

    Args:
        http: sends the requests, with a key if one is given.
        url: URL of the route.
        model: model name in a request; None for none.
        info: what a Millpond says of the model at `/info`; empty for others.
    """

    kind: ClassVar[str]

    def __init__(
        self, http: httpx.AsyncClient, url: str, model: str | None, info: Mapping[str, Any] | None = None
    ) -> None:
        self._http = http
        self.url = url
        self.model = model
        self.info = info or {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Request the vectors of texts, (texts, dim).

        Raises:
            EndpointError: the server refuses, does not answer, or answers something else.
        """
        answer = await _ask(self._http, "POST", self.url, self._body(texts))
        try:
            vectors: Vectors = np.array(self._vectors(orjson.loads(answer.content)), dtype=np.float32)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            vectors = np.empty(0, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
            raise _Refused(
                f"{self.url} answered 200 with something other than {len(texts)} vectors of one size, as a server "
                f"of {self.kind}'s shape gives them: {shortened(answer.text)}."
            )
        if not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
            raise EndpointError(
                f"{self.url} gave a vector that is zero or not finite. Its model or its precision is broken; see "
                "its log."
            )
        return vectors

    @abstractmethod
    def _body(self, texts: Sequence[str]) -> dict[str, Any]: ...

    @abstractmethod
    def _vectors(self, answer: Any) -> Sequence[Any]: ...


class OpenAI(Endpoint):
    """`{"model", "input"}` -> `{"data": [{"index", "embedding"}]}`."""

    kind = "OpenAI"

    def _body(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"model": self.model, "input": list(texts)}

    def _vectors(self, answer: Any) -> Sequence[Any]:
        data = answer["data"]
        rows = sorted(data, key=lambda item: item["index"]) if all("index" in item for item in data) else data
        return [_decoded(item["embedding"]) for item in rows]


class TEI(Endpoint):
    """`{"inputs"}` -> `[[float]]`."""

    kind = "TEI"

    def _body(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"inputs": list(texts)} | ({"model": self.model} if self.model else {})

    def _vectors(self, answer: Any) -> Sequence[Any]:
        return list(answer)


class Millpond(TEI):
    """Millpond's route of the same shape."""

    kind = "Millpond"


async def find(http: httpx.AsyncClient, url: str, *, model: str, model_name: str | None = None) -> Endpoint:
    """Find a route that gives vectors: the URL itself if it ends like one, else one below it.

    Args:
        http: sends the requests.
        url: URL of a server or of one of its routes.
        model: model name to ask for if the server lists none.
        model_name: model name to ask for in any case.

    Raises:
        EndpointError: no route gives vectors.
    """
    url = url.rstrip("/")
    if url.endswith("/embeddings"):
        candidates: list[Endpoint] = [await _openai(http, url, model, model_name)]
    elif url.endswith("/embed"):
        candidates = [TEI(http, url, model_name)]
    elif (info := await _millpond(http, url)) is not None:
        name = model_name or str(info.get("default_model"))
        of_model = info["models"].get(name)
        candidates = [Millpond(http, f"{url}/embed", name, of_model if isinstance(of_model, dict) else None)]
    else:
        openai = ["embeddings"] if url.endswith("/v1") else ["v1/embeddings", "embeddings"]
        candidates = [await _openai(http, f"{url}/{path}", model, model_name) for path in openai]
        candidates.append(TEI(http, f"{url}/embed", model_name))
    refusals: list[_Refused] = []
    for candidate in candidates:
        try:
            await candidate.embed([_PROBE])
            return candidate
        except _Refused as error:
            refusals.append(error)
    for refusal in refusals:
        if not refusal.absent:
            raise EndpointError(
                f"{str(refusal).rstrip('.')}. See the server's log; give --model-name where it wants another name."
            )
    raise EndpointError(
        f"no vectors are to be had at {url}: {'; '.join(str(refusal).rstrip('.') for refusal in refusals)}. Give the "
        "URL of a route of OpenAI's shape, such as http://host:port/v1/embeddings, or of TEI's, "
        "http://host:port/embed; --model-name where the server wants another name."
    )


async def _openai(http: httpx.AsyncClient, url: str, model: str, model_name: str | None) -> OpenAI:
    return OpenAI(
        http, url, model_name or await _first_listed(http, f"{url.removesuffix('embeddings')}models") or model
    )


async def _first_listed(http: httpx.AsyncClient, url: str) -> str | None:
    listed = await _read(http, url)
    try:
        return str(listed["data"][0]["id"])
    except (TypeError, KeyError, IndexError):
        return None


async def _millpond(http: httpx.AsyncClient, url: str) -> dict[str, Any] | None:
    """Return the answer of `/info` if the server is a Millpond."""
    info = await _read(http, f"{url}/info")
    ours = isinstance(info, dict) and isinstance(info.get("models"), dict) and "poolings" in info
    return info if ours else None


async def _read(http: httpx.AsyncClient, url: str) -> Any:
    """Return the JSON at a URL; None if there is none."""
    try:
        return orjson.loads((await _ask(http, "GET", url)).content)
    except (_Refused, orjson.JSONDecodeError):
        return None


async def _ask(http: httpx.AsyncClient, method: str, url: str, body: Any = None) -> httpx.Response:
    try:
        answer = await http.request(method, url, json=body)
    except httpx.TimeoutException:
        raise EndpointError(f"{url} did not answer in time. See whether the server is busy, and try again.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise EndpointError(
            f"no server answers at {url} ({reason}). Start it, or correct --url, which is as http://127.0.0.1:8000."
        ) from None
    if answer.status_code in (401, 403):
        raise EndpointError(
            f"{url} answered {answer.status_code}: it wants a key, or another one. Give it with --api-key or "
            "MILLPOND_API_KEY."
        )
    if not answer.is_success:
        raise _Refused(
            f"{url} answered {answer.status_code}: {_explained(answer) or shortened(answer.text)}",
            absent=answer.status_code in _ABSENT,
        )
    return answer


def _explained(answer: httpx.Response) -> str:
    """Return the server's own error message, in any of the usual shapes."""
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(body, dict):
        return ""
    error = body.get("error")
    words = error.get("message") if isinstance(error, dict) else error or body.get("message") or body.get("detail")
    return " ".join(words.split())[:300] if isinstance(words, str) else ""


def _decoded(embedding: Any) -> Any:
    return np.frombuffer(b64decode(embedding), dtype="<f4") if isinstance(embedding, str) else embedding
