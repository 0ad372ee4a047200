"""Random histories against a dictionary that does the same."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.collections import Collections
from service.errors import NotFound
from service.index import KINDS
from service.index.hnsw import HnswIndex
from service.store import Chunked, Document
from tests.support.definitions import definition

DIM = 3
names = st.sampled_from(["one", "two"])
ids = st.sampled_from([f"d{i}" for i in range(8)])
years = st.integers(2018, 2022)
vectors = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 2, 3), (-1, 0, 1)])
several = st.lists(vectors, min_size=1, max_size=4)
entries = st.dictionaries(ids, st.tuples(several, years, st.text(max_size=5)), max_size=5)


def embedded(of_documents, chunked):
    """Vectors of documents, all those of each or the first alone."""
    if not chunked:
        return np.array([own[0] for own in of_documents], np.float32).reshape(-1, DIM)
    stacked = np.array([vector for own in of_documents for vector in own], np.float32).reshape(-1, DIM)
    return Chunked(stacked, [spans(own, chunked) for own in of_documents])


def spans(own, chunked):
    return tuple((place, place + 2) for place in range(len(own))) if chunked else None


def kept(own, chunked):
    """The same in the model: unit vectors, and the spans."""
    units = [np.array(vector) / np.linalg.norm(vector) for vector in own[: None if chunked else 1]]
    return units, spans(own, chunked)


class Tiny(HnswIndex):
    """Has a graph from a few vectors on, so that one is built and published again and again."""

    kind = "tiny"
    exact_below = 4
    most_tail = 3


class History(RuleBasedStateMachine):
    kind = "flat"

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.collections = Collections(self.folder)
        self.model = {}
        self.definitions = {}
        self.rebuilds = {}  # the definition, and the new vectors by id
        self.clock = 0

    def teardown(self):
        self.collections.close()
        shutil.rmtree(self.folder)

    @rule(name=names)
    def create(self, name):
        _, created = self.collections.create(
            name, self.definitions.setdefault(name, definition(name)), DIM, self.kind
        )
        assert created == (name not in self.model)
        self.model.setdefault(name, {})

    @rule(name=names)
    def drop(self, name):
        if name not in self.model:
            with pytest.raises(NotFound):
                self.collections.drop(name)
        else:
            self.collections.drop(name)
            del self.model[name], self.definitions[name]
            self.rebuilds.pop(name, None)

    @rule(name=names, new=entries, chunked=st.booleans(), given=st.booleans(), also=st.none() | several)
    def upsert(self, name, new, chunked, given, also):
        if name not in self.model:
            return
        documents = [
            Document(id_, text, {"year": year}, spans(own, chunked) if given else None)
            for id_, (own, year, text) in new.items()
        ]
        unchanged = {
            id_
            for id_, (own, year, text) in new.items()
            if id_ in self.model[name]
            and self.model[name][id_][2:] == (year, text)
            and (not given or not chunked or self.model[name][id_][1][1] == spans(own, chunked))
        }
        assert self.collections.get(name).unchanged(documents) == unchanged
        target, made = self.rebuilds.get(name, (definition("no rebuild"), {}))
        both = None if also is None else (target, embedded([also] * len(new), not chunked))
        stored = self.collections.get(name).upsert(
            documents,
            embedded([own for own, _, _ in new.values()], chunked),
            under=self.definitions[name],
            also=both,
        )
        assert stored == len(new)
        for id_ in new:
            made.pop(id_, None)
            if also is not None:
                made[id_] = kept(also, not chunked)
        for id_, (own, year, text) in new.items():
            self.clock += 1
            self.model[name][id_] = (self.clock, kept(own, chunked), year, text)

    @rule(name=names, id_=ids)
    def delete(self, name, id_):
        if name not in self.model:
            return
        if id_ in self.model[name]:
            self.collections.get(name).delete(id_)
            del self.model[name][id_]
            self.rebuilds.get(name, (None, {}))[1].pop(id_, None)
        else:
            with pytest.raises(NotFound):
                self.collections.get(name).delete(id_)

    @rule(name=names, turn=st.integers(1, 2))
    def begin_rebuild(self, name, turn):
        if name not in self.model:
            return
        target = definition(name, turn=turn)
        self.collections.get(name).begin_rebuild(target, DIM)
        if self.rebuilds.get(name, (None, {}))[0] != target:
            self.rebuilds[name] = (target, {})

    @rule(name=names, most=st.integers(1, 4), own=several, chunked=st.booleans())
    def build(self, name, most, own, chunked):
        if name not in self.rebuilds:
            return
        target, made = self.rebuilds[name]
        batch = self.collections.get(name).unbuilt(most=most)
        missing = sorted(self.model[name].keys() - made.keys(), key=lambda id_: self.model[name][id_][0])
        assert [document.id for _, document in batch] == missing[:most]
        keys = [key for key, _ in batch]
        self.collections.get(name).put_rebuilt(target, keys, embedded([own] * len(keys), chunked))
        made |= {id_: kept(own, chunked) for id_ in missing[:most]}

    @rule(name=names)
    def finish_rebuild(self, name):
        if name not in self.rebuilds:
            return
        target, made = self.rebuilds[name]
        complete = made.keys() == self.model[name].keys()
        assert self.collections.get(name).finish_rebuild() == complete
        if complete:
            for id_, (clock, _, year, text) in self.model[name].items():
                self.model[name][id_] = (clock, made[id_], year, text)
            self.definitions[name] = target
            del self.rebuilds[name]

    @rule(name=names)
    def abandon_rebuild(self, name):
        if name in self.model:
            assert self.collections.get(name).abandon_rebuild() == (name in self.rebuilds)
            self.rebuilds.pop(name, None)

    @rule()
    def reopen(self):
        self.collections.close()
        self.collections = Collections(self.folder)

    @rule(name=names, query=vectors, k=st.integers(1, 10), year=st.none() | years, grouped=st.booleans())
    def search(self, name, query, k, year, grouped):
        if name not in self.model:
            return
        filter_ = None if year is None else {"year": {"$gte": year}}
        found = self.collections.get(name).search(np.array([query], np.float32), k, filter_, grouped=grouped)[0]
        unit = np.array(query) / np.linalg.norm(query)
        expected = sorted(
            (-round(float(vector @ unit), 5), clock, place, id_, of[place] if of else None, stored, text)
            for id_, (clock, (own, of), stored, text) in self.model[name].items()
            for place, vector in enumerate(own)
            if year is None or stored >= year
        )
        if grouped:
            first = [next(row for row in expected if row[3] == id_) for id_ in {row[3] for row in expected}]
            expected = sorted(first)
        expected = expected[:k]
        assert [(hit.id, hit.span, hit.metadata, hit.text) for hit in found] == [
            (id_, span, {"year": stored}, text) for _, _, _, id_, span, stored, text in expected
        ]
        assert [hit.score for hit in found] == pytest.approx([-score for score, *_ in expected], abs=1e-5)

    @invariant()
    def agrees(self):
        assert [c.name for c in self.collections.list()] == sorted(self.model)
        for name, documents in self.model.items():
            collection = self.collections.get(name)
            assert collection.count() == len(documents)
            assert collection.chunks() == sum(len(own) for _, (own, _), _, _ in documents.values())
            assert collection.definition == self.definitions[name]
            rebuild = collection.rebuild()
            assert (rebuild and (rebuild.definition, rebuild.done)) == (
                (self.rebuilds[name][0], len(self.rebuilds[name][1])) if name in self.rebuilds else None
            )
            for id_, (_, (_, of), year, text) in documents.items():
                assert collection.fetch(id_) == Document(id_, text, {"year": year}, of)


class HistoryWithGraphs(History):
    kind = "tiny"

    @rule()
    def wait(self):
        self.collections.wait_for_builds()


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=settings.default.max_examples // 2, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)


class TestHistoryWithGraphs(HistoryWithGraphs.TestCase):
    settings = settings(TestHistory.settings, max_examples=settings.default.max_examples // 10, deadline=None)

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch):
        monkeypatch.setitem(KINDS, "tiny", Tiny)


@pytest.mark.slow
class TestManyHistoriesWithGraphs(TestHistoryWithGraphs):
    settings = settings(TestHistoryWithGraphs.settings, max_examples=100)
