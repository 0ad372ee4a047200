"""The one door to pymilvus, which has no types: calls of a server as typed methods, and its errors as ours."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from service.arrays import Vectors
from service.collections.milvus.schema import VECTOR, column_types
from service.errors import ConfigError, StoreUnavailable, brief

logger = logging.getLogger(__name__)

MOST_ROWS: Final = 16_384
"""Rows that one query or search of Milvus returns at most."""
_LOOKED: Final = 3.0
"""Seconds that a look at what collections there are may take: requests wait for it together."""
_LOOKS: Final = frozenset({"list its collections", "describe a collection", "tell its time", "describe an index"})
_PROBED: Final = 1.0
"""Seconds between two tries to reach a server that is lost."""
_POLLED: Final = 0.05
_TRIES: Final = 16
_INCOMPLETE: Final = "incomplete query result"
"""What Milvus says where it has found a row and then does not find it to read it."""
_MOST_LOADED: Final = 120.0
"""Seconds that a collection may take to be loaded."""
_MOST_SHOWN: Final = 300
_NO_COLLECTION, _NOT_LOADED, _FORBIDDEN, _NO_ALIAS, _ALIAS_TAKEN = 100, 101, 1401, 1600, 1602
_UNEXPECTED: Final = 65_535
_RATE_LIMITED: Final = frozenset({8, 9, 49, 50, 51, 52, 53})
_OLDEST, _BEYOND = (2, 3, 2), (3,)
"""Releases that are taken; the first has arrays."""
_TESTED: Final = (2, 3)

Row = dict[str, Any]
"""Values by column."""


class Gone(Exception):
    """There is no collection of this name in Milvus any more, or none yet."""


@dataclass(frozen=True, slots=True)
class Described:
    """What Milvus says of a collection.

    Args:
        name: its own name, not an alias.
        properties: those that were given to it, by name.
        aliases: those that stand for it.
        columns: the type of each, by name; a vector's has its dimension.
    """

    name: str
    properties: Mapping[str, str]
    aliases: Sequence[str]
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IndexRows:
    """How many rows an index of Milvus is over, and how many of those it has."""

    total: int
    indexed: int


class Client:
    """Calls of one Milvus server. Thread-safe; connects when it is first asked.

    Every method raises `StoreUnavailable` where the server cannot be reached or refuses, and `Gone` where it does not
    have the collection. While the server is lost, calls fail at once, and a thread tries to reach it.
    """

    def __init__(self, uri: str, token: str | None, database: str, timeout: float) -> None:
        # Or gRPC holds up whatever starts a process of its own until its threads rest, which they may never do.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            import pymilvus
        except ImportError:
            raise ConfigError(
                "store.engine is 'milvus', and pymilvus is not installed. Install it with "
                "`pip install 'millpond[milvus]'`, or choose the engine 'embedded'."
            ) from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # its errors are told as ours
        self._pymilvus: Any = pymilvus
        self._connected: Any = None
        self._uri, self._token, self._database, self._timeout = uri, token, database, timeout
        self._lock, self._losing = threading.Lock(), threading.Lock()
        self._lost: str | None = None
        self._closed = threading.Event()
        self.version = "unknown"
        """That of the server, once it was reached."""

    # What collections there are

    def collections(self) -> list[str]:
        """Return the names of all collections."""
        with self._asking("list its collections") as milvus:
            return list(milvus.list_collections(timeout=self._look))

    def describe(self, name: str) -> Described | None:
        """Return what a name or an alias stands for, None where it does for nothing."""
        try:
            with self._asking("describe a collection") as milvus:
                found = milvus.describe_collection(name, timeout=self._look)
        except Gone:
            return None
        return Described(
            found["collection_name"],
            {str(key): str(value) for key, value in found.get("properties", {}).items()},
            list(found.get("aliases", [])),
            {each["name"]: _column_type(each) for each in found["fields"]},
        )

    def create(self, name: str, dim: int, index: Mapping[str, Any], properties: Mapping[str, str]) -> None:
        """Create a collection with its columns and index, and load it."""
        types = self._pymilvus.DataType
        with self._asking("create a collection") as milvus:
            schema = milvus.create_schema(auto_id=False, enable_dynamic_field=False)
            for column in column_types(dim):
                options = dict(column.options)
                if "element_type" in options:
                    options["element_type"] = types[options["element_type"]]
                schema.add_field(column.name, types[column.type], is_primary=column.primary, **options)
            milvus.create_collection(
                name,
                schema=schema,
                consistency_level="Strong",
                num_shards=1,  # so that all rows of one call are seen at once
                properties=dict(properties),
                timeout=self._timeout,
            )
            parameters = milvus.prepare_index_params()
            parameters.add_index(VECTOR, **index)
            milvus.create_index(name, parameters, sync=False, timeout=self._timeout)
        self.load(name)

    def load(self, name: str) -> None:
        """Load a collection for searches, and wait until it is."""
        until = time.monotonic() + _MOST_LOADED
        with self._asking("load a collection") as milvus:
            milvus.load_collection(name, _async=True, timeout=self._timeout)
            while str(milvus.get_load_state(name, timeout=self._timeout)["state"]) != "Loaded":
                if time.monotonic() > until:
                    raise StoreUnavailable(
                        f"Milvus did not load a collection within {_MOST_LOADED:.0f} s. See its log; it may "
                        "lack memory."
                    )
                time.sleep(_POLLED)

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Give properties of a collection other values, in one step; the others stay as they are."""
        with self._asking("change a collection") as milvus:
            milvus.alter_collection_properties(name, dict(properties), timeout=self._timeout)

    def rename(self, name: str, to: str) -> None:
        """Give a collection another name; its aliases stay, and calls by the old name raise `Gone` from now on."""
        with self._asking("rename a collection") as milvus:
            milvus.rename_collection(name, to, timeout=self._timeout)

    def drop(self, name: str) -> None:
        """Drop a collection, if it is there."""
        try:
            with self._asking("drop a collection") as milvus:
                milvus.drop_collection(name, timeout=self._timeout)
        except Gone:
            pass

    def claim(self, alias: str, name: str) -> bool:
        """Make an alias stand for a collection; return whether it was free, or did so already."""
        try:
            with self._asking("make an alias", taken=_ALIAS_TAKEN) as milvus:
                milvus.create_alias(name, alias, timeout=self._timeout)
        except _Taken:
            return False
        return True

    def move(self, alias: str, name: str) -> None:
        """Make an alias that there is stand for another collection, in one step."""
        with self._asking("move an alias") as milvus:
            milvus.alter_alias(name, alias, timeout=self._timeout)

    def release(self, alias: str) -> None:
        """Drop an alias, if it is there."""
        with self._asking("drop an alias") as milvus:
            milvus.drop_alias(alias, timeout=self._timeout)

    # Rows

    def moment(self) -> int:
        """Return a moment that has all that was written until now, for reads that are to see it."""
        with self._asking("tell its time") as milvus:
            return int(milvus._get_connection().alloc_timestamp(timeout=self._look))

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Store rows, those with the same key replaced; all become visible in one moment."""
        if rows:
            with self._asking("store documents") as milvus:
                milvus.upsert(name, list(rows), timeout=self._timeout)

    def delete(self, name: str, keys: Sequence[str]) -> None:
        """Delete rows by their primary keys, all in one moment."""
        if keys:
            with self._asking("delete documents") as milvus:
                milvus.delete(name, ids=list(keys), timeout=self._timeout)

    def query(self, name: str, where: str, columns: Sequence[str], at: int, limit: int = MOST_ROWS) -> list[Row]:
        """Return rows that an expression holds for, in the order of their primary keys, `limit` at most."""
        with self._asking("read documents", loads=name) as milvus:
            found = milvus.query(name, filter=where, output_fields=list(columns), limit=limit, **self._seen(at))
            return [dict(row) for row in found]

    def count(self, name: str, where: str, at: int) -> int:
        """Return the number of rows that an expression holds for, as Milvus counts.

        It counts a row that is being replaced once for each of its versions that it has not put away yet.
        """
        with self._asking("count documents", loads=name) as milvus:
            found = milvus.query(name, filter=where, output_fields=["count(*)"], **self._seen(at))
            return int(found[0]["count(*)"])

    def search(
        self,
        name: str,
        vectors: Vectors,
        limit: int,
        where: str,
        columns: Sequence[str],
        parameters: Mapping[str, Any],
        at: int,
    ) -> list[list[Row]]:
        """Return the rows nearest to each query (q, dim), the best first, of those that an expression holds for."""
        for _ in range(_TRIES):
            try:
                with self._asking("search", loads=name, moved=_INCOMPLETE) as milvus:
                    found = milvus.search(
                        name,
                        data=list(vectors),
                        anns_field=VECTOR,
                        limit=limit,
                        filter=where,
                        output_fields=list(columns),
                        search_params=dict(parameters),
                        **self._seen(at),
                    )
                    return [[dict(hit["entity"]) for hit in hits] for hits in found]
            except _Moved:
                continue
        raise StoreUnavailable(
            f"Milvus at {self._uri} did not search, since documents that it finds are replaced all the time. Repeat "
            "the request."
        )

    def index_rows(self, name: str) -> IndexRows:
        """Return how far the index of the vectors is."""
        with self._asking("describe an index") as milvus:
            found = milvus.describe_index(name, VECTOR, timeout=self._look)
            return IndexRows(int(found.get("total_rows", 0)), int(found.get("indexed_rows", 0)))

    def close(self) -> None:
        """Close the connection; later calls raise `StoreUnavailable`."""
        self._closed.set()
        with self._lock:
            connected, self._connected = self._connected, None
        if connected is not None:
            connected.close()

    @property
    def _look(self) -> float:
        return min(self._timeout, _LOOKED)

    def _seen(self, at: int) -> dict[str, Any]:
        return {"consistency_level": "Customized", "guarantee_timestamp": at, "timeout": self._timeout}

    @contextmanager
    def _asking(
        self, what: str, *, taken: int | None = None, loads: str | None = None, moved: str | None = None
    ) -> Iterator[Any]:
        """Yield the connection, and raise as ours what it raises in the block."""
        milvus = self._connection()
        try:
            yield milvus
        except self._pymilvus.MilvusException as error:
            if self._closed.is_set():
                raise _closed() from None
            code, said = error.code, str(error.message)
            if code == taken:
                raise _Taken from None
            if moved is not None and moved in said:
                raise _Moved from None
            if code == _NO_COLLECTION or "collection not found" in said:
                raise Gone from None
            if code == _NOT_LOADED and loads is not None:
                self.load(loads)
                raise StoreUnavailable(
                    f"Milvus at {self._uri} had not loaded the collection, and has now. Repeat the request."
                ) from None
            if code == _UNEXPECTED and loads is not None and self.describe(loads) is None:
                raise Gone from None  # it was dropped in the middle of the call
            raise self._failure(what, code, said) from None
        except (StoreUnavailable, Gone):
            raise
        except Exception as error:
            if self._closed.is_set():  # by another thread, in the middle of the call
                raise _closed() from None
            code = getattr(error, "code", None)
            if not callable(code):
                raise  # it is none of gRPC's, and a bug
            raise self._failure(what, code(), str(error)) from None

    def _failure(self, what: str, code: Any, said: str) -> StoreUnavailable:
        said = " ".join(said.split())[:_MOST_SHOWN]
        name = getattr(code, "name", "")
        if name == "DEADLINE_EXCEEDED" or "DEADLINE_EXCEEDED" in said:
            if what in _LOOKS:  # which a server that works answers at once: no other request shall wait for it
                self._lose(f"it did not {what} within {self._look:g} s")
                return self._unreachable()
            return StoreUnavailable(
                f"Milvus at {self._uri} did not {what} within {self._timeout:g} s (store.timeout), so that it may be "
                "done or not. Repeat the request; storing or deleting the same again does no harm."
            )
        if name == "UNAVAILABLE" or "UNAVAILABLE" in said or code == 2 or "Fail connecting" in said:
            self._lose(said)
            return self._unreachable()
        if code in _RATE_LIMITED or "rate limit" in said or "quota" in said:
            return StoreUnavailable(
                f"Milvus at {self._uri} does not {what} now, since a quota of it is used up ({said}). Repeat the "
                "request later, or raise quotaAndLimits in its configuration."
            )
        if "database not found" in said:
            said += f"; store.database is {self._database!r}"
        return StoreUnavailable(f"Milvus at {self._uri} refused to {what}: {said} (code {code}).")

    def _connection(self) -> Any:
        if self._closed.is_set():
            raise _closed()
        if self._lost is not None:
            raise self._unreachable()
        if self._connected is None:
            with self._lock:
                if self._connected is None and not self._closed.is_set():
                    self._connected = self._opened()
        return self._connected

    def _opened(self) -> Any:
        """Return a new connection to a server of a release that is supported."""
        try:
            milvus = self._client()
            version = str(milvus.get_server_version(timeout=self._look))
        except Exception as error:
            said = brief(error, _MOST_SHOWN)
            if getattr(error, "code", None) == _FORBIDDEN or "auth" in said or "database not found" in said:
                raise StoreUnavailable(
                    f"Milvus at {self._uri} does not let Millpond in: {said}. See store.token and store.database."
                ) from None
            self._lose(said)
            raise self._unreachable() from None
        require_supported(version, self._uri)
        self.version = version
        return milvus

    def _unreachable(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"Milvus at {self._uri} (store.uri) cannot be reached: {self._lost or 'it was not tried yet'}. Repeat "
            "the request; it is tried again all the time."
        )

    def _lose(self, said: str) -> None:
        """Note that the server is lost, and try to reach it from now on."""
        with self._losing:
            if self._lost is None and not self._closed.is_set():
                self._lost = said
                logger.warning("Milvus at %s is lost (%s)", self._uri, said)
                threading.Thread(target=self._probe, name="milvus", daemon=True).start()

    def _probe(self) -> None:
        while not self._closed.wait(_PROBED):
            try:
                milvus = self._client()
                version = str(milvus.get_server_version(timeout=self._look))
                milvus.list_collections(timeout=self._look)  # which a server that starts refuses for a while
                require_supported(version, self._uri)
            except Exception as error:
                self._lost = error.detail if isinstance(error, StoreUnavailable) else brief(error, _MOST_SHOWN)
            else:
                with self._lock:
                    before, self._connected, self._lost = self._connected, milvus, None
                if before is not None:
                    before.close()
                logger.info("Milvus at %s is reached again", self._uri)
                return

    def _client(self) -> Any:
        return self._pymilvus.MilvusClient(
            self._uri, token=self._token or "", db_name=self._database, timeout=self._look, dedicated=True
        )


class _Taken(Exception):
    """An alias stands for another collection."""


class _Moved(Exception):
    """What a search has found is not there any more when it reads the columns of that."""


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the store is closed, since the service stops. Repeat the request.")


def require_supported(version: str, uri: str) -> None:
    """Require a release of the server that is supported; raises `StoreUnavailable`."""
    numbers = _numbers(version)
    if not _OLDEST <= numbers < _BEYOND:
        raise StoreUnavailable(
            f"the server at {uri} (store.uri) is Milvus {version}, and Millpond takes 2.3.2 or newer, before 3. "
            "Update it, or choose another server."
        )
    if numbers[:2] != _TESTED:
        logger.warning("Milvus at %s is %s; the engine is tested with 2.3.5 alone", uri, version)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.removeprefix("v").split("-")[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _column_type(described: Mapping[str, Any]) -> str:
    """Return the type of a column, with what must be as it is asked for."""
    name = str(described["type"].name)
    if name == "ARRAY":
        return f"ARRAY of {described['element_type'].name}"
    if name == "FLOAT_VECTOR":
        return f"FLOAT_VECTOR({described['params']['dim']})"
    return name


def as_vectors(rows: Sequence[Row], dim: int) -> Vectors:
    """Return the vectors of rows, (n, dim)."""
    return np.array([row[VECTOR] for row in rows], np.float32).reshape(-1, dim)
