"""Writing rows of documents, so that whatever ends between two calls leaves no document lost or mixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.collections.milvus.client import Client, Row
from service.collections.milvus.moment import Moment
from service.collections.milvus.rows import Encoded, parted
from service.collections.milvus.schema import KEY, ORDINAL, OWNER, SEQUENCE


def put(client: Client, physical: str, documents: Iterable[tuple[Encoded, list[Row]]]) -> None:
    """Store documents with all their rows, each in one moment, and all of them where they fit in one call."""
    for rows in parted(documents):
        client.upsert(physical, rows)


def tidy(moment: Moment, owners: Sequence[str]) -> None:
    """Delete rows of some documents that are not of their heads' storing: they are read as if they were not there.

    Nothing that is there later is touched, since a key is used for one storing only.
    """
    rows = list(moment.among(owners, f"{ORDINAL} > 0", [OWNER, SEQUENCE]))
    if not rows:
        return
    heads = {
        row[OWNER]: row[SEQUENCE]
        for row in moment.among(sorted({row[OWNER] for row in rows}), f"{ORDINAL} == 0", [OWNER, SEQUENCE])
    }
    stale = [row[KEY] for row in rows if heads.get(row[OWNER]) != row[SEQUENCE]]
    moment.client.delete(moment.generation.physical, stale)


def remove(moment: Moment, owners: Sequence[str]) -> None:
    """Delete documents with all their rows, in one moment."""
    keys = [row[KEY] for row in moment.among(owners, f"{ORDINAL} >= 0", [])]
    moment.client.delete(moment.generation.physical, keys)
