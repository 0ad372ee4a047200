"""OpenVINO graphs to int8 by NNCF."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from service.encoder.quantization import measure, quantize_graph, vectors
from service.errors import ConfigError
from tests.support import checkpoints

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def bert(checkpoint_of):
    return checkpoint_of(checkpoints.plain_bert, texts=20)


@pytest.fixture(scope="module")
def graph(bert):
    from service.encoder.runtimes.openvino import convert

    return convert(bert.module())


def running(graph):
    compiled = openvino.Core().compile_model(graph, "CPU")

    def run(ids, mask):
        return torch.from_numpy(compiled([ids, mask.astype(np.int64)])[0].copy())

    return run


@pytest.mark.slow
def test_int8_stays_near_and_says_nothing(bert, graph, capfd):
    if find_spec("nncf") is None:  # imported only where it is used, as by the service
        pytest.skip("NNCF is not installed; it comes with the extra 'openvino'")
    loggers = logging.getLoggerClass()
    reference = vectors(running(graph), bert.held_out)
    seen = []
    capfd.readouterr()
    quantized = quantize_graph(graph, bert.fitting, lambda *step: seen.append(step))
    assert capfd.readouterr().out == ""
    kinds = [operation.get_type_name() for operation in quantized.get_ops()]
    assert kinds.count("FakeQuantize") > 10
    assert "FakeQuantize" not in [operation.get_type_name() for operation in graph.get_ops()]
    assert measure(reference, vectors(running(quantized), bert.held_out)).mean_cosine > 0.99
    texts = sum(len(ids) for ids, _ in bert.fitting)
    assert seen[-1] == ("calibrate", texts, texts)
    assert logging.getLoggerClass() is loggers


def test_without_nncf_the_extra_is_named(graph, bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"pip install 'millpond\[openvino\]'"):
        quantize_graph(graph, bert.fitting)
