"""Keyword search: for each collection a full-text table of its own, ranked by BM25 within that collection.

The table is FTS5 over a view of the collection's texts, so that it holds terms and no copy of a text. What is indexed
instead of a text, where they differ, is kept in `segmented`: FTS5 has to read what was put in to take it out.
"""

import json
import logging
import math
import sqlite3
from collections.abc import Sequence
from typing import Final

import numpy as np

from service.arrays import Floats, Keys
from service.store.tokenizers import TOKENIZERS, Tokenizer

logger = logging.getLogger(__name__)

UNAVAILABLE: Final = (
    f"SQLite {sqlite3.sqlite_version} here is built without FTS5: keyword and hybrid searches are refused, and all "
    "else works. Use a Python whose sqlite3 has FTS5, as those of python.org, Debian and conda-forge have; what is "
    "stored until then is indexed at the first start with it."
)
_MOST_FOR_A_TERM: Final = 2.2
"""k1 + 1 of BM25, with FTS5's k1."""
_LEAST_WEIGHT: Final = 1e-6
"""What FTS5 gives a term that half of the documents have."""
_FEW: Final = 20
"""Documents that may have a term without making it a common one, in however small a collection."""
_WORTH: Final = 4
"""How many times as many documents must be left out by a step before another, for the two to be faster."""
_ROUNDING: Final = 1e-6


def is_built_in(connection: sqlite3.Connection) -> bool:
    """Return whether this SQLite has FTS5."""
    return connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is not None


def prepare(connection: sqlite3.Connection) -> None:
    """Fill the tables that are not current, such as those of an older store; part of a transaction.

    Without FTS5, none is current from then on, since documents will change without them.
    """
    if not is_built_in(connection):
        connection.execute("UPDATE keywords SET current = 0")
        return
    owners = {f"keywords_{key}" for (key,) in connection.execute("SELECT collection FROM keywords WHERE current")}
    virtual = connection.execute(
        "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE keywords%'"
    ).fetchall()
    for (name,) in virtual:
        if name not in owners:
            connection.execute(f"DROP TABLE {name}")
    for (key,) in connection.execute("SELECT collection FROM keywords WHERE NOT current").fetchall():
        _create(connection, key)
        fill(connection, key)


def needs_preparation(connection: sqlite3.Connection) -> bool:
    """Return whether `prepare` has anything to do."""
    states = {bool(state) for (state,) in connection.execute("SELECT DISTINCT current FROM keywords")}
    return is_built_in(connection) not in states if states else False


def create(connection: sqlite3.Connection, collection: int, tokenizer: Tokenizer) -> None:
    """Give a new collection its table."""
    current = is_built_in(connection)
    connection.execute("INSERT INTO keywords VALUES (?, ?, ?)", (collection, tokenizer.name, current))
    if current:
        _create(connection, collection)


def drop(connection: sqlite3.Connection, collection: int) -> None:
    """Take away a collection's table, before the collection is deleted."""
    if current(connection, collection):
        connection.execute(f"DROP TABLE keywords_{collection}")
    connection.execute(f"DROP VIEW IF EXISTS keyword_texts_{collection}")


def current(connection: sqlite3.Connection, collection: int) -> bool:
    """Return whether a collection has a table that can be searched."""
    found = connection.execute("SELECT current FROM keywords WHERE collection = ?", (collection,)).fetchone()
    return bool(found and found[0])


def add(connection: sqlite3.Connection, collection: int, texts: Sequence[tuple[int, str]]) -> None:
    """Index the texts of documents that have just been stored, given with their keys, which ascend."""
    if not current(connection, collection):
        return
    tokenizer = _tokenizer(connection, collection)
    indexed = [(key, tokenizer.indexed(text)) for key, text in texts]
    changed = [row for row, (_, text) in zip(indexed, texts, strict=True) if row[1] != text]
    connection.executemany("INSERT INTO segmented VALUES (?, ?)", changed)
    connection.executemany(f"INSERT INTO keywords_{collection} (rowid, text) VALUES (?, ?)", indexed)


def remove(connection: sqlite3.Connection, collection: int, condition: str, parameters: Sequence[object]) -> None:
    """Take out documents that a condition on the table `documents` finds, before they are deleted."""
    if current(connection, collection):
        connection.execute(
            f"DELETE FROM keywords_{collection} WHERE rowid IN (SELECT key FROM documents WHERE {condition})",
            parameters,
        )


def fill(connection: sqlite3.Connection, collection: int) -> None:
    """Index all documents of a collection anew, as after they have been stored without it."""
    connection.create_function("indexed", 1, _tokenizer(connection, collection).indexed, deterministic=True)
    of_collection = "FROM documents WHERE collection = ?"
    connection.execute(f"DELETE FROM segmented WHERE document IN (SELECT key {of_collection})", (collection,))
    connection.execute(
        f"INSERT INTO segmented SELECT key, indexed(text) {of_collection} AND indexed(text) <> text", (collection,)
    )
    connection.execute(f"INSERT INTO keywords_{collection} (keywords_{collection}) VALUES ('rebuild')")
    connection.execute("UPDATE keywords SET current = 1 WHERE collection = ?", (collection,))
    (count,) = connection.execute(f"SELECT count(*) FROM keywords_{collection}_docsize").fetchone()
    if count:
        logger.info("the texts of %d documents are indexed for keyword search", count)


def renew(connection: sqlite3.Connection) -> None:
    """Index those texts anew that their tokenizer reads otherwise than when they were stored; part of a migration."""
    if not is_built_in(connection):
        return
    for (collection,) in connection.execute("SELECT collection FROM keywords WHERE current").fetchall():
        tokenizer = _tokenizer(connection, collection)
        rows = connection.execute(
            "SELECT key, documents.text, coalesce(segmented.text, documents.text) FROM documents "
            "LEFT JOIN segmented ON document = key WHERE collection = ?",
            (collection,),
        )
        changed = [key for key, text, read in rows if not text.isascii() and tokenizer.indexed(text) != read]
        for key in changed:
            remove(connection, collection, "key = ?", (key,))
            connection.execute("DELETE FROM segmented WHERE document = ?", (key,))
            text = connection.execute("SELECT key, text FROM documents WHERE key = ?", (key,)).fetchall()
            add(connection, collection, text)


def search(
    connection: sqlite3.Connection, collection: int, terms: Sequence[str], k: int, allowed: Keys | None = None
) -> tuple[Keys, Floats]:
    """Return keys and BM25 scores, each (m,), of the `m` <= `k` best documents that have any of the terms.

    The best come first, equal scores by key. A term that more than half of the documents have tells nothing, and is
    left out beside others unless those are few. `terms` are as a `Tokenizer` gives them; `allowed` are the keys that
    may be found, None for all.
    """
    if allowed is not None and not len(allowed):
        terms = []
    query = _Query(connection, f"keywords_{collection}", terms)
    rows = query.best(k, allowed)
    return np.array([key for key, _ in rows], np.int64), np.array([score for _, score in rows], np.float32)


class _Query:
    """The terms of a query that count, the rarest first, and the ranking of documents by them."""

    def __init__(self, connection: sqlite3.Connection, table: str, terms: Sequence[str]) -> None:
        self._connection, self._table = connection, table
        counts = {term: self._value(f"count(*) FROM {table} WHERE {table} MATCH ?", term) for term in terms}
        found = sorted((term for term in terms if counts[term]), key=counts.__getitem__)
        total = self._value(f"count(*) FROM {table}_docsize") if found else 0
        common = max(total / 2, _FEW)
        self.terms = [term for term in found if counts[term] <= common] or found
        self._counts = [counts[term] for term in self.terms]
        # The most that a term gives a document: its weight as SQLite has it, times what many occurrences approach.
        weights = [math.log((total - count + 0.5) / (count + 0.5)) for count in self._counts]
        self._bounds = [_MOST_FOR_A_TERM * max(weight, _LEAST_WEIGHT) for weight in weights]

    def best(self, k: int, allowed: Keys | None) -> list[tuple[int, float]]:
        """Return keys and scores of the `k` best documents, of those that are allowed.

        Where a few rare terms decide, only what has one of those is scored by all: documents without them cannot
        reach the score of the last one wanted (Turtle and Flood, 1995, "Query evaluation: strategies and
        optimizations"). Scoring is what takes long, and common terms have many documents.
        """
        if allowed is not None and _WORTH * sum(self._counts) < len(allowed):
            allowed = np.intersect1d(self._matching(), allowed, assume_unique=True)  # or SQLite sorts all of them
        for rare in range(1, len(self.terms)):
            others = sum(self._bounds[rare:])
            if _WORTH * sum(self._counts[:rare]) > sum(self._counts):
                break
            if others > self._bounds[0] / _MOST_FOR_A_TERM:
                continue
            by_rare = self._ranked(self.terms[:rare], -1, allowed)
            if len(by_rare) >= k and (least := by_rare[k - 1][1]) > others:
                near = [key for key, score in by_rare if score > least - others - _ROUNDING]
                return self._ranked(self.terms, k, np.array(near, np.int64))
            break
        return self._ranked(self.terms, k, allowed)

    def _ranked(self, terms: Sequence[str], k: int, allowed: Keys | None) -> list[tuple[int, float]]:
        """Score every document that has one of the terms, and return the `k` best, all with -1."""
        if not terms:
            return []
        # The unary plus keeps SQLite from looking up each allowed key by a full-text query of its own.
        condition = "" if allowed is None else "AND +rowid IN (SELECT value FROM json_each(?))"
        return self._connection.execute(
            f"SELECT rowid, -bm25({self._table}) AS score FROM {self._table} WHERE {self._table} MATCH ? {condition} "
            "ORDER BY score DESC, rowid LIMIT ?",
            (" OR ".join(terms), *([] if allowed is None else [json.dumps(allowed.tolist())]), k),
        ).fetchall()

    def _matching(self) -> Keys:
        """Return the keys of the documents that have one of the terms."""
        if not self.terms:
            return np.empty(0, np.int64)
        query = f"SELECT rowid FROM {self._table} WHERE {self._table} MATCH ?"
        return np.fromiter((key for (key,) in self._connection.execute(query, (" OR ".join(self.terms),))), np.int64)

    def _value(self, expression: str, *parameters: str) -> int:
        (value,) = self._connection.execute(f"SELECT {expression}", parameters).fetchone()
        return int(value)


def _create(connection: sqlite3.Connection, collection: int) -> None:
    connection.execute(f"DROP VIEW IF EXISTS keyword_texts_{collection}")
    connection.execute(
        f"CREATE VIEW keyword_texts_{collection} AS SELECT key, coalesce(segmented.text, documents.text) AS text "
        f"FROM documents LEFT JOIN segmented ON document = key WHERE collection = {collection:d}"
    )
    tokenizer = _tokenizer(connection, collection)
    connection.execute(
        f"CREATE VIRTUAL TABLE keywords_{collection} USING fts5(text, content='keyword_texts_{collection}', "
        f"content_rowid='key', tokenize=\"{tokenizer.declaration}\")"
    )


def _tokenizer(connection: sqlite3.Connection, collection: int) -> Tokenizer:
    (name,) = connection.execute("SELECT tokenizer FROM keywords WHERE collection = ?", (collection,)).fetchone()
    return TOKENIZERS[name]
