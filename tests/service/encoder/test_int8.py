"""Encoders in int8 as they are served: near float32, the same in any batch, and made once."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from service.embedding.embedder import Embedder
from service.encoder.runtimes.machine import int8_advice
from service.errors import CheckpointError, ConfigError
from tests.support.checkpoints import TEXTS, close, embed, plain_bert, served
from tests.support.servers import ROOT

needs_openvino = pytest.mark.skipif(find_spec("nncf") is None, reason="the extra 'openvino' is not installed")

INT8 = {"backend": "auto", "precision": "int8", "threads": "auto"}


@pytest.fixture(scope="module")
def wanted(minilm):
    with served(minilm) as models:
        return embed(models, TEXTS), models.get(None).fingerprint


@pytest.mark.parametrize(
    ("has", "limit", "advice"),
    [
        (set(), "", "no VNNI"),
        ({"avx_vnni"}, "", None),
        ({"avx512_vnni", "avx512_bf16"}, "", None),
        ({"avx512_vnni", "avx512_bf16"}, "AVX2", "no VNNI"),
        ({"avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}, "", "AMX"),
        ({"avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}, "AVX512_CORE_BF16", None),
    ],
)
def test_it_is_advised_against_where_something_else_is_faster(has, limit, advice, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: dict.fromkeys(has, True))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    found = int8_advice()
    assert found is None if advice is None else advice in found


@pytest.mark.slow
@needs_openvino
def test_int8_is_near_float32_and_made_once(minilm, wanted, caplog):
    caplog.set_level("INFO")
    with served(minilm, runtime=INT8) as models:
        found = embed(models, TEXTS)
        encoder = models.get(None).encoder
        assert (encoder.runtime.backend, encoder.runtime.precision) == ("openvino", "int8")
        assert encoder.agreement.mean_cosine > 0.98
        assert models.get(None).fingerprint == wanted[1], "precision is no part of a fingerprint"
    assert (found * wanted[0]).sum(1).min() > 0.95
    assert "quantising" in caplog.text
    assert (int8_advice() or "") in caplog.text
    caplog.clear()
    with served(minilm, runtime=INT8) as models:
        assert np.array_equal(embed(models, TEXTS), found)
        assert models.get(None).encoder.agreement == encoder.agreement
    assert "quantising" not in caplog.text


@pytest.mark.slow
@needs_openvino
def test_a_text_has_the_same_vector_in_any_company(minilm):
    with served(minilm, runtime=INT8) as models:
        together = embed(models, TEXTS)
        for place, text in enumerate(TEXTS):
            assert close(embed(models, [text]), together[place : place + 1])
            assert close(embed(models, [text, TEXTS[1] * 5])[:1], together[place : place + 1])


@pytest.mark.slow
@needs_openvino
def test_an_encoder_that_int8_ruins_is_refused(tmp_path):
    """One channel of its states is far larger than the others, which are lost in the steps it is cut into."""
    folder = plain_bert(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith("LayerNorm.bias"):
            tensor[3] = 30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    cache = tmp_path / "cache"
    with (
        pytest.raises(CheckpointError, match=r"int8 changes its vectors too much.* rank correlation is "),
        served(folder, pooling="mean", runtime=INT8 | {"cache": cache}),
    ):
        pass
    assert list(cache.glob("graph-*")) and not list(cache.glob("int8-*"))


def test_int8_is_for_openvino(tmp_path, monkeypatch):
    folder = plain_bert(tmp_path / "model")
    with (
        pytest.raises(ConfigError, match=r"^runtime\.precision: int8 is for OpenVINO\. Set backend: auto, or "),
        served(folder, pooling="mean", runtime=INT8 | {"backend": "torch"}),
    ):
        pass
    monkeypatch.setitem(sys.modules, "openvino", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'millpond\[openvino\]'\. Or set precision: auto\."),
        served(folder, pooling="mean", runtime=INT8),
    ):
        pass


@needs_openvino
def test_calibration_texts_that_are_none(tmp_path):
    (tmp_path / "texts.txt").write_text("\n \n")
    runtime = INT8 | {"calibration": tmp_path / "texts.txt"}
    with (
        pytest.raises(ConfigError, match=r"runtime\.calibration: .*holds no text"),
        served(plain_bert(tmp_path / "model"), pooling="mean", runtime=runtime),
    ):
        pass


@pytest.mark.slow
@needs_openvino
def test_int8_over_many_languages(minilm):
    """What docs/serving.md says of texts that are unlike those of the calibration: less agrees, yet not little."""
    texts = (ROOT / "tests" / "support" / "languages.txt").read_text(encoding="utf-8").splitlines()
    vectors = []
    for precision in ("fp32", "int8"):
        with Embedder.load(str(minilm), runtime={"backend": "openvino", "precision": precision}) as embedder:
            vectors.append(embedder.encode(texts))
    cosines = (vectors[0] * vectors[1]).sum(1)
    print(f"{len(texts)} languages: mean cosine {cosines.mean():.3f}, least {cosines.min():.3f}")
    assert cosines.mean() > 0.97 and cosines.min() > 0.93
