"""Services on the Milvus server of the tests, and a collection with one document."""

import numpy as np
import pytest

from service.store import Document
from tests.support.definitions import definition


@pytest.fixture
def engine(milvus):
    opened = milvus.engine()
    yield opened
    opened.close()


@pytest.fixture
def other(milvus):
    """A second service on the same server."""
    opened = milvus.engine()
    yield opened
    opened.close()


@pytest.fixture
def client(milvus):
    opened = milvus.client()
    yield opened
    opened.close()


@pytest.fixture
def notes(engine):
    collection = engine.create("notes", definition(), 2, "flat")[0]
    collection.upsert([Document("a", "one", {"n": 1})], np.array([[1, 0]], np.float32))
    return collection
