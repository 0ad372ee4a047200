"""Random histories of the embedded engine."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from service.collections.embedded import EmbeddedEngine
from service.index import KINDS
from service.index.hnsw import HnswIndex
from service.index.ivf import IvfIndex
from tests.support.histories import History


class Tiny(HnswIndex):
    """Has a graph from a few vectors on, so that one is built and published again and again."""

    kind = "tiny"
    exact_below = 4
    most_tail = 3


class TinyIvf(IvfIndex):
    """The same with segments."""

    kind = "tiny ivf"
    exact_below = 4
    most_tail = 3
    most_of_segment = 12


class EmbeddedHistory(History):
    def opened(self, folder: Path) -> EmbeddedEngine:
        self.engine = EmbeddedEngine(folder)
        return self.engine


class HistoryWithGraphs(EmbeddedHistory):
    kind = "tiny"

    @rule()
    def wait(self):
        self.engine.wait_for_builds()


class HistoryWithSegments(HistoryWithGraphs):
    kind = "tiny ivf"


TestHistory = EmbeddedHistory.TestCase
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
