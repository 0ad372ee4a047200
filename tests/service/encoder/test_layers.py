"""The states of every layer, as transformers lists them, from both runtimes, and alone or beside others in a pass."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pooling.layers import LAST, Stack, build
from service.checkpoint import read_checkpoint
from service.config import RuntimeConfig
from service.encoder.batcher import Batcher
from service.encoder.loading import Source
from service.encoder.memory import Footprint
from service.encoder.runtimes.openvino import OpenVINORuntime
from service.encoder.runtimes.torch import TorchRuntime
from service.encoder.shapes import AnyShape
from service.encoder.task import EveryLayer
from service.errors import CheckpointError, ConfigError
from tests.support import checkpoints

FAMILIES = {
    "bert": checkpoints.plain_bert,
    "roberta": checkpoints.plain_roberta,
    "llama": checkpoints.plain_llama,
    "gpt2": checkpoints.plain_gpt2,
    "t5": checkpoints.plain_t5,
    "longformer": checkpoints.plain_longformer,
    "bigbird": checkpoints.plain_bigbird,
    "modernbert": checkpoints.plain_modernbert,
}
IDS = np.arange(5, 29).reshape(2, 12)
MASK = np.arange(12) < np.array([[12], [7]])


def listed(source):
    """Return the hidden states that transformers lists by itself for each text without padding."""
    module = source.module()
    found = []
    with torch.inference_mode():
        for ids, kept in zip(IDS, MASK, strict=True):
            alone = torch.from_numpy(ids[kept])[None]
            output = module(input_ids=alone, attention_mask=torch.ones_like(alone), output_hidden_states=True)
            assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
            found.append([states[0] for states in output.hidden_states])
    return found


def check(runtime, source):
    """Each layer of both texts in one padded pass is what transformers lists of each alone."""
    expected = listed(source)
    assert runtime.depth == len(expected[0]) - 1
    found = runtime.by_layer(IDS, MASK, [*range(runtime.depth + 1), -1])
    for row, (layers, kept) in enumerate(zip(expected, MASK, strict=True)):
        for layer, states in enumerate(layers):
            apart = (found[layer][row, : kept.sum()] - states).abs().max() / states.abs().max()
            assert apart < 1e-4, (layer, float(apart))
    last = runtime.states(IDS, MASK)
    assert torch.equal(found[-1], found[runtime.depth])
    torch.testing.assert_close(found[-1][MASK], last[MASK], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_is_what_transformers_lists(tmp_path, family):
    source = Source(read_checkpoint(str(FAMILIES[family](tmp_path / family))), tmp_path / "cache")
    runtime = TorchRuntime.load(source, RuntimeConfig(precision="fp32"))
    if family in ("longformer", "bigbird"):  # these look at how wide a pass is: alone at the same width
        ids, mask = IDS[:1], MASK[:1]
        with torch.inference_mode():
            output = source.module()(
                input_ids=torch.from_numpy(ids),
                attention_mask=torch.from_numpy(mask.astype(np.int64)),
                output_hidden_states=True,
            )
        found = runtime.by_layer(ids, mask, range(runtime.depth + 1))
        for layer, states in enumerate(output.hidden_states):
            torch.testing.assert_close(found[layer], states, rtol=1e-4, atol=1e-4)
        return
    check(runtime, source)
    assert torch.equal(runtime.by_layer(IDS, MASK, [0, -1])[-1], runtime.states(IDS, MASK))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "t5", "modernbert"])
def test_each_layer_on_openvino(tmp_path, family):
    source = Source(read_checkpoint(str(FAMILIES[family](tmp_path / family))), tmp_path / "cache")
    runtime = OpenVINORuntime.load(source, RuntimeConfig(precision="fp32"))
    assert runtime.depth is None
    runtime.carry_layers(source)
    check(runtime, source)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    return Source(read_checkpoint(str(checkpoints.plain_bert(folder / "bert"))), folder / "cache")


@pytest.fixture(scope="module")
def runtime(source):
    return TorchRuntime(source.module(), "fp32", threads=1)


@pytest.mark.slow
def test_a_second_graph_is_made_once_and_gives_layers_in_any_thread(source):
    runtime = OpenVINORuntime.load(source, RuntimeConfig(precision="fp32", threads=1))
    assert not list(source.artifacts.root.glob("layered-graph*"))
    runtime.carry_layers(source)
    (made,) = (path for path in source.artifacts.root.glob("layered-graph*") if path.is_dir())
    written = (made / "graph.bin").stat().st_mtime_ns
    again = OpenVINORuntime.load(source, RuntimeConfig(precision="fp32", threads=1))
    again.carry_layers(source)
    assert (made / "graph.bin").stat().st_mtime_ns == written
    with ThreadPoolExecutor(1) as thread:  # which has made no request of its own yet
        thread.submit(check, again, source).result(20)


@pytest.mark.slow
def test_an_int8_graph_has_no_other_layers(source):
    runtime = OpenVINORuntime.load(source, RuntimeConfig(precision="fp32", threads=1))
    runtime.precision = "int8"
    with pytest.raises(ConfigError, match=r"int8 is quantised for the states of the last layer.*precision: auto"):
        runtime.carry_layers(source)


class Bare(torch.nn.Module):
    """A module that gives its last hidden states alone."""

    def __init__(self, module):
        super().__init__()
        self.module, self.config = module, module.config

    def forward(self, input_ids, attention_mask, **_):
        output = self.module(input_ids=input_ids, attention_mask=attention_mask)
        return SimpleNamespace(last_hidden_state=output.last_hidden_state)


def test_an_architecture_without_hidden_states(source):
    runtime = TorchRuntime(Bare(source.module()), "fp32", threads=1)
    assert runtime.depth is None
    with pytest.raises(CheckpointError, match=r"gives no states but those of its last layer.*layers: last"):
        runtime.carry_layers(source)


def test_the_last_layer_is_what_the_encoder_gives_where_only_that_is_normalised(source):
    class Unnormalised(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.config = module, module.config

        def forward(self, **given):
            output = self.module(**given)
            output.last_hidden_state = torch.nn.functional.layer_norm(output.last_hidden_state, (checkpoints.DIM,))
            return output

    module = Unnormalised(source.module())
    ids = torch.from_numpy(IDS)
    with torch.inference_mode():
        layers = EveryLayer(module)(ids, torch.ones_like(ids))
        assert torch.equal(layers[-1], module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state)


def last_token(states, mask, ids):
    return [row[kept][-1].clone() for row, kept in zip(states, mask, strict=True)]


class Watched(TorchRuntime):
    """Notes which layers each pass carries."""

    def __init__(self, module):
        super().__init__(module, "fp32", threads=1)
        self.carried = []

    def by_layer(self, ids, mask, wanted, *, wide=False):
        self.carried.append((len(ids), sorted(wanted)))
        return super().by_layer(ids, mask, wanted, wide=wide)


@contextmanager
def batcher(runtime):
    limits = {"max_batch_tokens": 256, "max_queued_tokens": 10_000, "max_queued_seconds": 60.0}
    one = Batcher(runtime, shapes=AnyShape(), pad_id=0, max_state_bytes=1 << 30, **limits)
    try:
        yield one
    finally:
        one.close()


def test_layered_rows_and_plain_ones_share_a_pass_and_give_what_each_gives_alone(source):
    runtime = Watched(source.module())
    choices = [LAST, build({"use": ["first", "last"]}, runtime.depth), build({"use": [0]}, runtime.depth), LAST]
    texts = [IDS[0, :7], IDS[1, :7], IDS[0, 3:10], IDS[1, 2:9]]
    entered, opened = threading.Event(), threading.Event()

    def gate(states, mask, ids):
        entered.set()
        assert opened.wait(20)
        return last_token(states, mask, ids)

    with batcher(runtime) as one:
        alone = [
            one.submit([ids], last_token, layers).result(20)[0] for ids, layers in zip(texts, choices, strict=True)
        ]
        assert [wanted for _, wanted in runtime.carried] == [[-1], [1, 2], [0], [-1]]
        busy = one.submit([texts[0]], gate)
        assert entered.wait(20)
        futures = [one.submit([ids], last_token, layers) for ids, layers in zip(texts, choices, strict=True)]
        opened.set()
        together = [future.result(20)[0] for future in futures]
        busy.result(20)
    assert runtime.carried[-1] == (4, [-1, 0, 1, 2])
    for one_alone, beside in zip(alone, together, strict=True):
        torch.testing.assert_close(one_alone, beside, rtol=1e-5, atol=1e-5)


def test_a_pass_counts_the_layers_that_it_carries():
    footprint = Footprint.of(
        {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}, fused_attention=True
    )
    assert footprint.of_layers(2, 5, 3) == 2 * 5 * 2 * 3 * 8 * 4


def test_stacked_layers_of_one_pass(runtime):
    stack = Stack((0, 1, 2))
    with batcher(runtime) as one:
        (found,) = one.submit([IDS[0]], lambda states, *_: list(states), stack).result(20)
    expected = runtime.by_layer(IDS[:1], MASK[:1], stack.used)
    for layer, states in stack.split(found[None]).items():
        torch.testing.assert_close(states, expected[layer], rtol=1e-5, atol=1e-5)
