"""An engine on the Milvus server of the tests."""

import pytest


@pytest.fixture
def engine(milvus):
    opened = milvus.engine()
    yield opened
    opened.close()
