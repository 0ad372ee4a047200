"""Random histories against a dictionary that does the same."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.collections import Collections
from service.collections.selection import Selection, merged
from service.errors import InvalidCursor, NameConflict, NotFound
from service.index import KINDS
from service.index.hnsw import HnswIndex
from service.index.ivf import IvfIndex
from service.store import Chunked, Document
from tests.support.definitions import definition

DIM = 3
names = st.sampled_from(["one", "two", "three", "four"])  # of collections, and of aliases
held = st.runner().flatmap(lambda history: st.sampled_from(sorted(history.model) or ["one"]))
ids = st.sampled_from([f"d{i}" for i in range(5)])
years = st.integers(2018, 2022)
vectors = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 2, 3), (-1, 0, 1)])
several = st.lists(vectors, min_size=1, max_size=4)
filters = years.map(lambda year: {"year": {"$gte": year}})
patches = st.sampled_from([{"year": None}, {"by": {"name": "Ada", "no": None}}, {"by": {"age": 9}}, {"by": 1}, {}])
patches |= years.map(lambda year: {"year": year})
entries = st.dictionaries(ids, st.tuples(several, years, st.text(max_size=5)), max_size=5)
filled = st.dictionaries(ids, st.tuples(several, years, st.text(max_size=5)), min_size=3)


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


def matches(filter_, metadata):
    return filter_ is None or metadata.get("year", 0) >= filter_["year"]["$gte"]


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
        self.aliases = {}
        self.identities = {}  # a number that a collection keeps under any name
        self.listing = None  # a page that more follow: the collection, the filter, its last clock, the cursor
        self.clock = 0

    def teardown(self):
        self.collections.close()
        shutil.rmtree(self.folder)

    @initialize(new=filled)
    def begin(self, new):
        """With something in it, or most of the rules would find nothing to do."""
        self.create("one")
        self.upsert("one", new, chunked=False, given=False, also=None)

    @rule(name=names)
    def create(self, name):
        if name in self.aliases:
            with pytest.raises(NameConflict):
                self.collections.create(name, definition(name), DIM)
            return
        _, created = self.collections.create(
            name, self.definitions.setdefault(name, definition(name)), DIM, self.kind
        )
        assert created == (name not in self.model)
        if created:
            self.model[name], self.identities[name] = {}, self.tick()

    @rule(name=names)
    def drop(self, name):
        if name not in self.model:
            with pytest.raises(NameConflict if name in self.aliases else NotFound):
                self.collections.drop(name)
        else:
            self.collections.drop(name)
            del self.model[name], self.definitions[name], self.identities[name]
            self.rebuilds.pop(name, None)
            self.aliases = {alias: of for alias, of in self.aliases.items() if of != name}

    @rule(name=held, new=entries, chunked=st.booleans(), given=st.booleans(), also=st.none() | several)
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
            and self.model[name][id_][2:] == ({"year": year}, text)
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
            self.model[name][id_] = (self.tick(), kept(own, chunked), {"year": year}, text)

    @rule(name=held, id_=ids)
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

    @rule(name=held, turn=st.integers(1, 2))
    def begin_rebuild(self, name, turn):
        if name not in self.model:
            return
        target = definition(name, turn=turn)
        self.collections.get(name).begin_rebuild(target, DIM)
        if self.rebuilds.get(name, (None, {}))[0] != target:
            self.rebuilds[name] = (target, {})

    @rule(name=held, most=st.integers(1, 4), own=several, chunked=st.booleans())
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

    @rule(name=held)
    def finish_rebuild(self, name):
        if name not in self.rebuilds:
            return
        target, made = self.rebuilds[name]
        complete = made.keys() == self.model[name].keys()
        assert self.collections.get(name).finish_rebuild() == complete
        if complete:
            for id_, (clock, _, metadata, text) in self.model[name].items():
                self.model[name][id_] = (clock, made[id_], metadata, text)
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

    @rule(name=held, ids=st.none() | st.lists(ids, max_size=5), filter_=st.none() | filters)
    def delete_many(self, name, ids, filter_):
        if name not in self.model:
            return
        selected, selection = self.selected(name, ids, filter_)
        done = self.collections.get(name).delete_many(selection)
        assert (done.count, set(done.missing)) == (len(selected), set(ids or ()) - self.model[name].keys())
        for id_ in selected:
            del self.model[name][id_]
            self.rebuilds.get(name, (None, {}))[1].pop(id_, None)

    @rule(name=held, ids=st.none() | st.lists(ids, max_size=5), filter_=st.none() | filters, patch=patches)
    def update_metadata(self, name, ids, filter_, patch):
        if name not in self.model:
            return
        selected, selection = self.selected(name, ids, filter_)
        change = (lambda _: patch) if patch.get("year") else (lambda before: merged(before, patch))
        done = self.collections.get(name).update_metadata(selection, change)
        assert (done.count, set(done.missing)) == (len(selected), set(ids or ()) - self.model[name].keys())
        for id_ in selected:
            clock, own, metadata, text = self.model[name][id_]
            self.model[name][id_] = (clock, own, change(metadata), text)

    @rule(name=held | names, to=names)
    def rename(self, name, to):
        if self.refuses(NotFound if name not in self.model else None, name, to, self.collections.rename):
            return
        self.collections.rename(name, to)
        for held in (self.model, self.definitions, self.identities, self.rebuilds):
            if name in held:
                held[to] = held.pop(name)
        self.aliases = {alias: to if of == name else of for alias, of in self.aliases.items()}

    @rule(name=held | names, to=names)
    def copy(self, name, to):
        source = self.aliases.get(name, name)
        if source not in self.model or to in self.model or to in self.aliases:
            with pytest.raises((NotFound, NameConflict)):
                self.collections.copy(name, to)
            return
        self.collections.copy(name, to)
        self.definitions[to], self.identities[to] = self.definitions[source], self.tick()
        in_order = sorted(self.model[source].items(), key=lambda item: item[1][0])
        self.model[to] = {id_: (self.tick(), *entry) for id_, (_, *entry) in in_order}

    @rule(alias=names, name=held | names)
    def alias(self, alias, name):
        of = self.aliases.get(name, name)
        if alias in self.model or of not in self.model:
            with pytest.raises(NameConflict if alias in self.model else NotFound):
                self.collections.alias(alias, name)
            return
        assert self.collections.alias(alias, name)[1] == (alias not in self.aliases)
        self.aliases[alias] = of

    @rule(alias=names)
    def delete_alias(self, alias):
        if alias not in self.aliases:
            with pytest.raises(NotFound):
                self.collections.delete_alias(alias)
        else:
            self.collections.delete_alias(alias)
            del self.aliases[alias]

    @rule(name=held, limit=st.integers(1, 4), begun=st.none() | filters)
    def list_on(self, name, limit, begun):
        """The next page of a list that was begun before, or the first one."""
        if name not in self.model:
            return
        of, filter_, behind, cursor = self.listing or (self.identities[name], begun, 0, None)
        if of != self.identities[name]:
            with pytest.raises(InvalidCursor):
                self.collections.get(name).page(limit, cursor, filter_)
            return
        page = self.collections.get(name).page(limit, cursor, filter_, vectors=True)
        left = sorted(
            (clock, id_)
            for id_, (clock, _, metadata, _) in self.model[name].items()
            if clock > behind and matches(filter_, metadata)
        )
        assert [stored.document.id for stored in page.documents] == [id_ for _, id_ in left[:limit]]
        assert (page.cursor is None) == (len(left) <= limit)
        for stored in page.documents:
            self.check(name, stored)
        self.listing = (of, filter_, left[limit - 1][0], page.cursor) if page.cursor else None

    @rule(name=held, asked=st.lists(ids, max_size=5), filter_=filters)
    def fetch_many_and_count(self, name, asked, filter_):
        if name not in self.model:
            return
        found, missing = self.collections.get(name).fetch_many(asked, vectors=True)
        distinct = list(dict.fromkeys(asked))
        assert [stored.document.id for stored in found] == [id_ for id_ in distinct if id_ in self.model[name]]
        assert missing == [id_ for id_ in distinct if id_ not in self.model[name]]
        for stored in found:
            self.check(name, stored)
        assert self.collections.get(name).count_matching(filter_) == sum(
            matches(filter_, metadata) for _, _, metadata, _ in self.model[name].values()
        )

    def tick(self):
        self.clock += 1
        return self.clock

    def selected(self, name, ids, filter_):
        """The ids that are selected: by ids, else by a filter, else all; and the selection."""
        if ids is not None:
            return set(ids) & self.model[name].keys(), Selection(ids=ids)
        chosen = {id_ for id_, (_, _, metadata, _) in self.model[name].items() if matches(filter_, metadata)}
        return chosen, Selection(all=True) if filter_ is None else Selection(filter=filter_)

    def refuses(self, otherwise, name, to, change):
        """Whether a change of a name is refused, which is checked."""
        taken = name in self.aliases or to in self.model or to in self.aliases
        expected = (otherwise, NameConflict) if otherwise and taken else NameConflict if taken else otherwise
        if expected:
            with pytest.raises(expected):
                change(name, to)
        return expected is not None

    def check(self, name, stored):
        """A document is stored with what the model has."""
        _, (own, of), metadata, text = self.model[name][stored.document.id]
        assert stored.document == Document(stored.document.id, text, metadata, of)
        norms = np.linalg.norm(stored.vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(stored.vectors / norms, own, atol=1e-6)

    @rule(name=held, query=vectors, k=st.integers(1, 10), filter_=st.none() | filters, grouped=st.booleans())
    def search(self, name, query, k, filter_, grouped):
        if name not in self.model:
            return
        found = self.collections.get(name).search(np.array([query], np.float32), k, filter_, grouped=grouped)[0]
        unit = np.array(query) / np.linalg.norm(query)
        expected = sorted(
            (-round(float(vector @ unit), 5), clock, place, id_, of[place] if of else None, metadata, text)
            for id_, (clock, (own, of), metadata, text) in self.model[name].items()
            for place, vector in enumerate(own)
            if matches(filter_, metadata)
        )
        if grouped:
            first = [next(row for row in expected if row[3] == id_) for id_ in {row[3] for row in expected}]
            expected = sorted(first)
        expected = expected[:k]
        assert [(hit.id, hit.span, hit.metadata, hit.text) for hit in found] == [
            (id_, span, metadata, text) for _, _, _, id_, span, metadata, text in expected
        ]
        assert [hit.score for hit in found] == pytest.approx([-score for score, *_ in expected], abs=1e-5)

    @invariant()
    def agrees(self):
        assert [c.name for c in self.collections.list()] == sorted(self.model)
        assert {alias: of.name for alias, of in self.collections.aliases().items()} == self.aliases
        assert all(self.collections.get(alias) is self.collections.get(of) for alias, of in self.aliases.items())
        for name, documents in self.model.items():
            collection = self.collections.get(name)
            assert collection.count() == len(documents)
            assert collection.chunks() == sum(len(own) for _, (own, _), _, _ in documents.values())
            assert collection.definition == self.definitions[name]
            rebuild = collection.rebuild()
            assert (rebuild and (rebuild.definition, rebuild.done)) == (
                (self.rebuilds[name][0], len(self.rebuilds[name][1])) if name in self.rebuilds else None
            )
            for id_, (_, (_, of), metadata, text) in documents.items():
                assert collection.fetch(id_) == Document(id_, text, metadata, of)
            assert collection.stored_bytes() == sum(
                len(text.encode()) + len(json.dumps(metadata, separators=(",", ":"))) + 4 * DIM * len(own)
                for _, (own, _), metadata, text in documents.values()
            )


class TinyIvf(IvfIndex):
    """The same with segments."""

    kind = "tiny ivf"
    exact_below = 4
    most_tail = 3
    most_of_segment = 12


class HistoryWithGraphs(History):
    kind = "tiny"

    @rule()
    def wait(self):
        self.collections.wait_for_builds()


class HistoryWithSegments(HistoryWithGraphs):
    kind = "tiny ivf"


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=200 if settings.default.max_examples > 25 else 12,  # many in the slow tier
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)


class TestHistoryWithGraphs(HistoryWithGraphs.TestCase):
    settings = settings(TestHistory.settings, max_examples=settings.default.max_examples // 10, deadline=None)

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch):
        monkeypatch.setitem(KINDS, "tiny", Tiny)


class TestHistoryWithSegments(HistoryWithSegments.TestCase):
    settings = TestHistoryWithGraphs.settings

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch):
        monkeypatch.setitem(KINDS, "tiny ivf", TinyIvf)


@pytest.mark.slow
class TestManyHistoriesWithGraphs(TestHistoryWithGraphs):
    settings = settings(TestHistoryWithGraphs.settings, max_examples=100)


@pytest.mark.slow
class TestManyHistoriesWithSegments(TestHistoryWithSegments):
    settings = TestManyHistoriesWithGraphs.settings
