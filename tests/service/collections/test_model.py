"""Random histories against a dictionary that does the same."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.collections import Collections, Document, NotFound

DIM = 3
names = st.sampled_from(["one", "two"])
ids = st.sampled_from([f"d{i}" for i in range(8)])
years = st.integers(2018, 2022)
vectors = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 2, 3), (-1, 0, 1)])
entries = st.dictionaries(ids, st.tuples(vectors, years, st.text(max_size=5)), max_size=5)


class History(RuleBasedStateMachine):
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
        _, created = self.collections.create(name, self.definitions.setdefault(name, {"for": name}), DIM)
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

    @rule(name=names, new=entries, also=st.none() | vectors)
    def upsert(self, name, new, also):
        if name not in self.model:
            return
        documents = [Document(id_, text, {"year": year}) for id_, (_, year, text) in new.items()]
        array = np.array([vector for vector, _, _ in new.values()], np.float32).reshape(-1, DIM)
        unchanged = {
            id_
            for id_, (_, year, text) in new.items()
            if id_ in self.model[name] and self.model[name][id_][2:] == (year, text)
        }
        assert self.collections.get(name).unchanged(documents) == unchanged
        target, made = self.rebuilds.get(name, ({"no": "rebuild"}, {}))
        both = None if also is None else (target, np.array([also] * len(new), np.float32).reshape(-1, DIM))
        stored = self.collections.get(name).upsert(documents, array, under=self.definitions[name], also=both)
        assert stored == len(new)
        for id_ in new:
            made.pop(id_, None)
            if also is not None:
                made[id_] = np.array(also) / np.linalg.norm(also)
        for id_, (vector, year, text) in new.items():
            self.clock += 1
            self.model[name][id_] = (self.clock, np.array(vector) / np.linalg.norm(vector), year, text)

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
        target = {"for": name, "turn": turn}
        self.collections.get(name).begin_rebuild(target, DIM)
        if self.rebuilds.get(name, (None, {}))[0] != target:
            self.rebuilds[name] = (target, {})

    @rule(name=names, most=st.integers(1, 4), vector=vectors)
    def build(self, name, most, vector):
        if name not in self.rebuilds:
            return
        target, made = self.rebuilds[name]
        batch = self.collections.get(name).unbuilt(most=most)
        missing = sorted(self.model[name].keys() - made.keys(), key=lambda id_: self.model[name][id_][0])
        assert [document.id for _, document in batch] == missing[:most]
        keys = [key for key, _ in batch]
        self.collections.get(name).put_rebuilt(
            target, keys, np.array([vector] * len(keys), np.float32).reshape(-1, DIM)
        )
        made |= {id_: np.array(vector) / np.linalg.norm(vector) for id_ in missing[:most]}

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

    @rule(name=names, query=vectors, k=st.integers(1, 10), year=st.none() | years)
    def search(self, name, query, k, year):
        if name not in self.model:
            return
        filter_ = None if year is None else {"year": {"$gte": year}}
        found = self.collections.get(name).search(np.array([query], np.float32), k, filter_)[0]
        unit = np.array(query) / np.linalg.norm(query)
        expected = sorted(
            (-round(float(vector @ unit), 5), clock, id_, stored, text)
            for id_, (clock, vector, stored, text) in self.model[name].items()
            if year is None or stored >= year
        )[:k]
        assert [(hit.id, hit.metadata, hit.text) for hit in found] == [
            (id_, {"year": stored}, text) for _, _, id_, stored, text in expected
        ]
        assert [hit.score for hit in found] == pytest.approx([-score for score, *_ in expected], abs=1e-5)

    @invariant()
    def agrees(self):
        assert [c.name for c in self.collections.list()] == sorted(self.model)
        for name, documents in self.model.items():
            collection = self.collections.get(name)
            assert collection.count() == len(documents)
            assert collection.definition == self.definitions[name]
            rebuild = collection.rebuild()
            assert (rebuild and (rebuild.definition, rebuild.done)) == (
                (self.rebuilds[name][0], len(self.rebuilds[name][1])) if name in self.rebuilds else None
            )
            for id_, (_, _, year, text) in documents.items():
                assert collection.fetch(id_) == Document(id_, text, {"year": year})


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
