"""Under `precision: auto`, an encoder that a fast precision fails is served in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.encoder.runtimes import machine, torch
from service.errors import CheckpointError
from tests.support.checkpoints import TEXTS, embed, plain_bert, served, unbounded


def fnet(folder: Path) -> Path:
    """Its Fourier transform does not run in bf16."""
    return unbounded("FNet", folder, pad_token_id=1, tpu_short_seq_length=34)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A machine that has bf16; PyTorch computes in it on any."""
    for module in (machine, torch):
        monkeypatch.setattr(module, "has_native_bf16", lambda: True)
    return {"backend": "torch", "precision": "auto", "cache": str(tmp_path / "cache")}


def test_what_bf16_fails_is_served_in_fp32(
    tmp_path: Path, runtime: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with served(fnet(tmp_path / "model"), pooling="mean", runtime=runtime) as models:
        encoder = models.get().encoder
        assert encoder.runtime.precision == "fp32" and encoder.agreement is None
        assert "in fp32, since bf16 failed" in encoder.runtime_reason
        assert embed(models, TEXTS).shape == (len(TEXTS), 24)
    assert "is served in fp32, not in bf16" in caplog.text


def test_what_bf16_suits_is_served_in_it(tmp_path: Path, runtime: dict[str, Any]) -> None:
    with served(plain_bert(tmp_path / "model"), pooling="mean", runtime=runtime) as models:
        assert models.get().encoder.runtime.precision == "bf16"


def test_bf16_that_is_asked_for_is_bf16_or_nothing(tmp_path: Path, runtime: dict[str, Any]) -> None:
    folder, asked = fnet(tmp_path / "model"), {**runtime, "precision": "bf16"}
    with pytest.raises(CheckpointError, match=r"runtime\.precision"), served(folder, pooling="mean", runtime=asked):
        pass
