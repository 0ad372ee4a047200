"""What a request does and how long it takes, as the rooms that serve it note it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class Phase(NamedTuple):
    """A part of a request's work, by the clock of `time.perf_counter`.

    Args:
        name: `tokenize`, `queue`, `inference` with a `pass` and a `pooling` for each forward pass, `search`, `store`.
        begun: when it began, in seconds.
        ended: when it ended.
        attributes: its sizes, by name.
    """

    name: str
    begun: float
    ended: float
    attributes: Mapping[str, int] = _NONE


class Observed:
    """A request: who asked for what, what was done for it, and what came of it.

    Args:
        id: the request's id, which its answer and its log lines carry.
        method: of HTTP.
        headers: as they were sent.
    """

    __slots__ = (
        "_counted",
        "_durations",
        "begun",
        "characters",
        "ended",
        "headers",
        "id",
        "method",
        "phases",
        "route",
        "status",
        "texts",
        "tokens",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - what it is called in headers and logs
        method: str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.id = id
        self.method = method
        self.headers = headers
        self.route = ""
        """The template of its path, such as `/collections/{name}`; never the path itself."""
        self.status = 0
        self.texts = 0
        """Texts that were tokenized to be embedded."""
        self.characters = 0
        """Their characters, or token ids where those were sent."""
        self.tokens = 0
        """Their tokens as the encoder reads them."""
        self.phases: list[Phase] = []
        self._durations: dict[str, float] = {}
        self._counted = 0
        self.begun = perf_counter()
        self.ended: float | None = None

    @property
    def duration(self) -> float:
        """Seconds from its beginning to its end, or until now."""
        return (perf_counter() if self.ended is None else self.ended) - self.begun

    def end(self) -> None:
        """Note the end; what goes on after it is no longer a part of the request."""
        self.ended = perf_counter()

    def durations(self) -> dict[str, float]:
        """Return how many seconds the phases of each name took together."""
        if self._counted != len(self.phases):  # asked for by several, mostly after the last
            self._durations = found = dict[str, float]()
            for name, begun, ended, _ in self.phases:
                found[name] = found.get(name, 0.0) + ended - begun
            self._counted = len(self.phases)
        return self._durations


_observed: ContextVar[Observed | None] = ContextVar("observed", default=None)


def observed() -> Observed | None:
    """Return the request that is being served here; None outside of requests, and in what goes on after one."""
    request = _observed.get()
    return request if request is not None and request.ended is None else None


def observing(request: Observed) -> _Observing:
    """Let `observed` return a request within the `with` block, in what it calls and awaits."""
    return _Observing(request)


def phase(name: str) -> _Timing:
    """Note the `with` block as a phase of the request that is being served here, if there is one."""
    return _Timing(name)


class _Observing:
    __slots__ = ("_request", "_token")

    def __init__(self, request: Observed) -> None:
        self._request = request

    def __enter__(self) -> None:
        self._token: Token[Observed | None] = _observed.set(self._request)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        _observed.reset(self._token)


class _Timing:
    __slots__ = ("_begun", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._begun = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if (request := observed()) is not None:
            request.phases.append(Phase(self._name, self._begun, perf_counter()))
