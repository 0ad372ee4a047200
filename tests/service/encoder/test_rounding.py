"""What a precision costs is measured when an encoder is loaded, and told by whoever is asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from service.embedding.embedder import Embedder
from service.errors import CheckpointError
from tests.support.checkpoints import TEXTS, plain_bert, plain_llama, plain_roberta

KINDS = {"bert": plain_bert, "roberta": plain_roberta, "llama": plain_llama}


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(KINDS[request.param](tmp_path / "model"))


def test_bf16_is_compared_with_float32(folder: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for start in ("cold", "warm"):
        vectors = {}
        for precision in ("fp32", "bf16"):
            runtime = {"backend": "torch", "precision": precision, "cache": cache, "threads": 1}
            with Embedder.load(folder, pooling="mean", normalize=True, runtime=runtime) as embedder:
                vectors[precision] = embedder.encode(TEXTS)
                agreement = embedder.encoder.agreement
            assert (agreement is None) == (precision == "fp32"), start
        cosines = (vectors["fp32"] * vectors["bf16"]).sum(1)
        assert agreement is not None and agreement.texts > 50
        assert 0.99 < agreement.least_cosine < 1 - 1e-6
        assert agreement.least_cosine <= agreement.mean_cosine < 1
        assert cosines.min() > 0.99 and cosines.min() < 1 - 1e-7
    assert len(list(cache.glob("rounding-*"))) == 1


def test_other_instructions_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = str(plain_bert(tmp_path / "model")), tmp_path / "cache"
    runtime = {"backend": "torch", "precision": "bf16", "cache": cache, "threads": 1}
    for limit, measured in (("", 1), ("SSE41", 2), ("SSE41", 2)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        Embedder.load(folder, pooling="mean", runtime=runtime).close()
        assert len(list(cache.glob("rounding-*"))) == measured


@pytest.mark.slow
def test_what_bf16_ruins_is_refused(minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    weights = load_file(folder / "model.safetensors")
    # Beside this constant bf16, with three digits, loses what tells words apart; in float32, LayerNorm takes it out.
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"] + 40
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    runtime = {"backend": "torch", "precision": "bf16", "cache": tmp_path / "cache"}
    with pytest.raises(CheckpointError, match=r"bf16 changes its vectors too much.*Set runtime\.precision to fp32\."):
        Embedder.load(str(folder), runtime=runtime)
    with Embedder.load(str(folder), runtime={**runtime, "precision": "fp32"}) as embedder:
        assert embedder.encoder.agreement is None
