"""Encoders in int8 as they are served: near float32, the same in any batch, and made once."""

from __future__ import annotations

import numpy as np
import pytest

from service.encoder.runtimes.machine import int8_advice
from service.errors import ConfigError
from tests.support.checkpoints import TEXTS, close, embed, plain_bert, served

pytest.importorskip("openvino")
pytest.importorskip("nncf")

INT8 = {"backend": "auto", "precision": "int8", "threads": "auto"}


@pytest.fixture(scope="module")
def wanted(minilm):
    with served(minilm) as models:
        return embed(models, TEXTS), models.get(None).fingerprint


@pytest.mark.slow
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
def test_a_text_has_the_same_vector_in_any_company(minilm):
    with served(minilm, runtime=INT8) as models:
        together = embed(models, TEXTS)
        for place, text in enumerate(TEXTS):
            assert close(embed(models, [text]), together[place : place + 1])
            assert close(embed(models, [text, TEXTS[1] * 5])[:1], together[place : place + 1])


def test_calibration_texts_that_are_none(tmp_path):
    (tmp_path / "texts.txt").write_text("\n \n")
    runtime = INT8 | {"calibration": tmp_path / "texts.txt"}
    with (
        pytest.raises(ConfigError, match=r"runtime\.calibration: .*holds no text"),
        served(plain_bert(tmp_path / "model"), pooling="mean", runtime=runtime),
    ):
        pass
