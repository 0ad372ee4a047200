"""The precisions in which a collection was filled, and a warning where it is searched in another."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from service.config import Config
from service.deployment import Deployment, open_deployment
from service.store import Document
from tests.support.checkpoints import plain_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_bert(tmp_path_factory.mktemp("model"))


def opened(folder: Path, store: Path, precision: str) -> Deployment:
    return open_deployment(
        Config.model_validate(
            {
                "models": {"default": {"encoder": str(folder), "pooling": "mean"}},
                "runtime": {"backend": "torch", "precision": precision, "threads": 1},
                "store": {"path": str(store)},
            }
        )
    )


def precisions(deployment: Deployment) -> list[str]:
    described = asyncio.run(deployment.collections.describe(asyncio.run(deployment.collections.get("docs"))))
    return described["precisions"]


def upsert(deployment: Deployment, *ids: str) -> None:
    asyncio.run(deployment.collections.upsert("docs", [Document(name, f"mill {name}", {}) for name in ids]))


async def reindex(deployment: Deployment) -> None:
    collection, reindexes = await deployment.collections.get("docs"), deployment.collections.reindexes
    await reindexes.begin(collection, None, None, None, truncate=False, force=True)
    while (await reindexes.progress(collection)).state == "running":
        await asyncio.sleep(0.01)


def test_a_precision_is_kept_and_a_change_is_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with opened(folder, tmp_path / "store", "bf16") as deployment:
        asyncio.run(deployment.collections.create("docs", None, None, "flat", None))
        assert precisions(deployment) == []
        upsert(deployment, "a", "b")
        assert precisions(deployment) == ["bf16"]
    with opened(folder, tmp_path / "store", "bf16"):
        assert "was filled in" not in caplog.text
    with opened(folder, tmp_path / "store", "fp32") as deployment:
        assert "collection 'docs' was filled in bf16, and model 'default' runs in fp32 now" in caplog.text
        upsert(deployment, "a")  # stored in equal form, so nothing was made
        assert precisions(deployment) == ["bf16"]
        upsert(deployment, "c")
        assert precisions(deployment) == ["bf16", "fp32"]
        asyncio.run(reindex(deployment))
        assert precisions(deployment) == ["fp32"]
