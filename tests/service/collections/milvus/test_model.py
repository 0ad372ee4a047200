"""Random histories of the Milvus engine, the same as those of the embedded one."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from service.collections import Engine
from tests.support.histories import History
from tests.support.milvus import MilvusServer


class MilvusHistory(History):
    server: MilvusServer

    def opened(self, folder: Path) -> Engine:
        if not hasattr(self, "folder_known"):
            self.folder_known = True
            self.server.clear()
        return self.server.engine()


@pytest.mark.peers
class TestHistory(MilvusHistory.TestCase):
    settings = settings(
        max_examples=6, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )

    @pytest.fixture(autouse=True)
    def _server(self, milvus_server):
        MilvusHistory.server = milvus_server
