"""A service asked by real clients over a real port."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from openai import OpenAI

from service.deployment import Deployment
from tests.support.applications import tiny_deployment
from tests.support.servers import ROOT, Server

LIMITS = {"MILLPOND_SERVER__MAX_BODY_BYTES": "65536", "MILLPOND_BATCHING__MAX_QUEUED_TOKENS": "4096"}


@pytest.fixture(scope="session")
def http(side_by_side: Server) -> httpx.Client:
    return side_by_side.http


@pytest.fixture(scope="session")
def openai(side_by_side: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{side_by_side.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The default deployment with small limits."""
    store = tmp_path_factory.mktemp("small") / "store"
    with Server(ROOT / "configs" / "mean.yaml", store, LIMITS) as server:
        yield server


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment of a tiny model in this process, for applications under various settings."""
    with tiny_deployment(tmp_path_factory.mktemp("tiny") / "store") as served:
        yield served


@pytest.fixture
def collection(http: httpx.Client) -> Iterator[str]:
    """The path of a new and empty collection."""
    path = f"/collections/test-{uuid4().hex[:12]}"
    assert http.put(path).status_code == 201
    yield path
    http.delete(path)
