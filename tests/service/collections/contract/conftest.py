"""The engines that the tests of this folder run on: each is a promise of `Engine`, and goes through that alone."""

import pytest

from service.collections.embedded import EmbeddedEngine
from tests.support.milvus import CONTRACT


@pytest.fixture(params=["embedded", pytest.param("milvus", marks=CONTRACT)])
def engine(request):
    """The name of an engine."""
    return request.param


@pytest.fixture
def reopen(engine, folder, request):
    """Closes the engine that is open, and opens it again on what it has stored."""
    opened = []

    def reopen():
        for each in opened:
            each.close()
        if engine == "embedded":
            opened.append(EmbeddedEngine(folder))
        else:
            opened.append(request.getfixturevalue("milvus").engine())
        return opened[-1]

    yield reopen
    for each in opened:
        each.close()


@pytest.fixture
def collections(reopen):
    """An engine that holds nothing."""
    return reopen()
