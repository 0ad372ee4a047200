"""What Milvus does not hold is refused by name, before anything is stored. No server is needed."""

from importlib.util import find_spec

import numpy as np
import pytest

from service.collections.milvus import MilvusEngine
from service.collections.milvus.client import require_supported
from service.collections.milvus.rows import check_lengths, encoded, parted
from service.errors import (
    ConfigError,
    InvalidDocument,
    InvalidIndex,
    InvalidInput,
    InvalidVector,
    KeywordsUnavailable,
    StoreUnavailable,
)
from service.similarity import COSINE, SIMILARITIES
from service.store import Document
from service.store.tokenizers import UNICODE61
from tests.support.definitions import definition

ONE = np.ones((1, 2), np.float32)


def test_texts_and_metadata():
    encoded(Document("a", "é" * 32_767, {}))
    with pytest.raises(InvalidDocument, match="'a': its text has 65536 bytes in UTF-8, and Milvus holds 65535"):
        encoded(Document("a", "é" * 32_768, {}))
    encoded(Document("a", "", {"x": "é" * 32_764}))
    with pytest.raises(InvalidDocument, match="'a': its metadata has 65538 bytes as JSON, and Milvus holds 65536"):
        encoded(Document("a", "", {"x": "é" * 32_765}))


def test_spans():
    of, spans = encoded(Document("a", "x" * 20_000, {})), tuple((i, i + 1) for i in range(6_000))
    with pytest.raises(InvalidDocument, match=r"'a': its 6000 spans take 6.* bytes, and Milvus holds 65536"):
        of.rows(np.ones((6_000, 2), np.float32), spans, 1, 1)
    with pytest.raises(InvalidDocument, match=r"'a': its 5000 vectors take .* bytes .* one call of Milvus takes"):
        of.rows(np.ones((5_000, 2_000), np.float32), spans[:5_000], 1, 1)


def test_a_request_is_parted_between_documents():
    of = [encoded(Document(str(i), "", {})) for i in range(5)]
    rows = [
        each.rows(np.ones((1_000, 3_000), np.float32), tuple((i, i + 1) for i in range(1_000)), 1, 1) for each in of
    ]
    calls = list(parted(zip(of, rows, strict=True)))
    assert [[row["document"] for row in call[::1_000]] for call in calls] == [["0", "1"], ["2", "3"], ["4"]]
    assert sum(map(len, calls)) == 5_000


def test_lengths():
    for length in (1e-16, 1e16):
        with pytest.raises(InvalidVector, match=r"vector 0 has the length 1e.*, and Milvus compares by cosine"):
            check_lengths(np.array([[length, 0]], np.float32), COSINE)
    check_lengths(np.array([[1e-16, 0]], np.float32), SIMILARITIES["dot"])


@pytest.mark.parametrize("version", ["v2.2.16", "v2.3.1", "3.0.0", "milvus_lite-3.2.2", "unknown"])
def test_servers_that_are_not_supported(version):
    with pytest.raises(StoreUnavailable, match=f"is Milvus {version}, and Millpond takes 2.3.2 or newer"):
        require_supported(version, "http://milvus")


@pytest.mark.parametrize("version", ["v2.3.5-lite", "2.3.2", "v2.6.1"])
def test_servers_that_are(version):
    require_supported(version, "http://milvus")


@pytest.mark.skipif(find_spec("pymilvus") is not None, reason="there is pymilvus")
def test_without_its_client():
    with pytest.raises(ConfigError, match=r"pymilvus is not installed.*pip install 'millpond\[milvus\]'"):
        MilvusEngine("http://127.0.0.1:9")


@pytest.mark.skipif(find_spec("pymilvus") is None, reason="there is no pymilvus")
def test_what_no_collection_can_have():
    engine = MilvusEngine("http://127.0.0.1:9")
    with pytest.raises(KeywordsUnavailable, match=r"full text came with Milvus 2\.5 and hybrid search with 2\.4"):
        engine.create("notes", definition(), 2, tokenizer=UNICODE61)
    with pytest.raises(InvalidIndex, match="takes no recall"):
        engine.create("notes", definition(), 2, "hnsw", 0.9)
    with pytest.raises(InvalidIndex, match="known: auto, flat, hnsw, ivf"):
        engine.create("notes", definition(), 2, "hnws")
    with pytest.raises(InvalidInput, match="has no idle timeout: several services may use a collection"):
        engine.create("notes", definition(), 2, idle_timeout=60)
    with pytest.raises(InvalidVector, match="at most 32768, not 32769"):
        engine.create("notes", definition(), 32_769)
    assert engine.default_tokenizer is None
    engine.close()
