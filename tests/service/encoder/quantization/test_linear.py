"""Linear layers to int8: which are replaced, how near they stay, and how they are kept."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from service.encoder.quantization import (
    Int8Linear,
    load_quantized,
    measure,
    quantize_linears,
    save_quantized,
    vectors,
)
from service.errors import CheckpointError
from tests.support import checkpoints

from .conftest import states

WIDTH = 32
PAD = 0


class Small(nn.Module):
    """Ids to states by `body`; the padding's state is so large that it would spoil any range."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, WIDTH).requires_grad_(False)
        self.words.weight[PAD] = 1e4
        self.body = body.requires_grad_(False)

    def forward(self, input_ids, attention_mask):
        return self.body(self.words(input_ids))


def ids(rows=8, time=12, padding=0):
    """A batch of random tokens."""
    tokens = np.random.default_rng(rows).integers(1, 50, (rows, time + padding))
    mask = np.ones(tokens.shape, dtype=np.bool_)
    mask[:, time:] = False
    return np.where(mask, tokens, PAD), mask


def error(module, original):
    """Share of the variance of its outputs that a module misses."""
    tokens, mask = ids()
    wanted = original(torch.from_numpy(tokens), torch.from_numpy(mask))
    found = module(torch.from_numpy(tokens), torch.from_numpy(mask))
    return float((found - wanted).square().mean() / wanted.var())


def quantized(body, **padding):
    module = Small(body)
    original = copy.deepcopy(module)
    return quantize_linears(module, [ids(**padding)]), original


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_stays_near(bias):
    module, original = quantized(nn.Sequential(nn.Linear(WIDTH, 40, bias=bias), nn.Tanh()))
    assert isinstance(module.body[0], Int8Linear)
    assert module.body[0].weight.dtype == torch.int8
    assert error(module, original) < 1e-3


def test_channels_of_very_different_size_are_evened_out():
    linear = nn.Linear(WIDTH, WIDTH)
    body = nn.Sequential(nn.LayerNorm(WIDTH), linear)
    with torch.no_grad():
        body[0].weight.copy_(torch.logspace(-2, 2, WIDTH))
        linear.weight.div_(body[0].weight)  # small channels count as much as large ones
    module, original = quantized(body)
    assert isinstance(module.body[1], Int8Linear)
    assert error(module, original) < 1e-3


def test_padding_is_not_looked_at():
    with_padding, _ = quantized(nn.Sequential(nn.Linear(WIDTH, 40)), padding=20)
    without, _ = quantized(nn.Sequential(nn.Linear(WIDTH, 40)))
    assert with_padding.body[0].multiplier.max() < 2 * without.body[0].multiplier.max()
    tokens, mask = (torch.from_numpy(part) for part in ids())
    for module in (with_padding, without):
        assert module(tokens, mask).abs().max() < 100


def test_mean_error_is_corrected():
    module, original = quantized(nn.Sequential(nn.Linear(WIDTH, 40)))
    tokens, mask = (torch.from_numpy(part) for part in ids())
    off = (module(tokens, mask) - original(tokens, mask)).mean((0, 1))
    assert off.abs().max() < 1e-3


class Reshaped(nn.Module):
    """Calls layers with tokens of all rows in one axis, with one state a row, and with four axes."""

    def __init__(self):
        super().__init__()
        self.flat, self.first, self.heads = (nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(8, 8))
        self.never = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens):
        rows, time, _ = tokens.shape
        flat = self.flat(tokens.reshape(-1, WIDTH)).view(rows, time, WIDTH)
        heads = self.heads(flat.view(rows, time, 4, 8)).flatten(2)
        return heads + self.first(tokens[:, 0])[:, None]


def test_inputs_of_other_shapes_and_a_layer_that_is_never_called():
    module, original = quantized(Reshaped(), padding=5)
    for layer in (module.body.flat, module.body.first, module.body.heads):
        assert isinstance(layer, Int8Linear)
        assert layer.multiplier.min() > 1  # padding of 10,000 would make it a fraction
    assert type(module.body.never) is nn.Linear
    assert error(module, original) < 5e-3


def test_a_shared_layer_stays_shared_and_tied_weights_are_each_replaced():
    shared, first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    second.weight = first.weight
    module, original = quantized(nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), first, nn.Tanh(), second))
    assert module.body[0] is module.body[2]
    assert [type(module.body[place]) for place in (0, 4, 6)] == [Int8Linear] * 3
    assert error(module, original) < 5e-3


class Own(nn.Linear):
    """A class of its own may be more than its product."""


def test_a_subclass_is_left_alone():
    module, _ = quantized(nn.Sequential(Own(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)))
    assert [type(layer) for layer in module.body] == [Own, Int8Linear]


class Shift(nn.Module):
    def forward(self, tokens):
        return tokens + 1000


def test_a_layer_that_int8_would_spoil_stays():
    sensitive = nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():  # sees only the small differences between large inputs
        sensitive.weight.sub_(sensitive.weight.mean(1, keepdim=True))
    module, original = quantized(nn.Sequential(Shift(), sensitive, nn.Linear(WIDTH, WIDTH)))
    assert [type(layer) for layer in module.body] == [Shift, nn.Linear, Int8Linear]
    assert error(module, original) < 1e-3


def test_an_encoder_without_linear_layers_is_refused(checkpoint_of):
    with pytest.raises(CheckpointError, match=r"GPT2Model.*Set runtime.precision to fp32"):
        loaded = checkpoint_of(checkpoints.plain_gpt2)
        quantize_linears(loaded.module(), loaded.fitting)


def test_progress_is_told():
    seen = []
    module = Small(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)))
    quantize_linears(module, [ids(4), ids(5), ids(6)], lambda *step: seen.append(step))
    assert seen == [
        *(("calibrate", done, 3) for done in range(4)),
        *(("fit layers", done, 2) for done in range(3)),
    ]


@pytest.mark.parametrize("plain", [checkpoints.plain_bert, checkpoints.plain_roberta, checkpoints.plain_llama])
def test_whole_encoders_stay_near(checkpoint_of, plain):
    loaded = checkpoint_of(plain)
    module = loaded.module()
    reference = vectors(states(module), loaded.held_out)
    quantize_linears(module, loaded.fitting)
    agreement = measure(reference, vectors(states(module), loaded.held_out))
    assert agreement.mean_cosine > 0.999
    agreement.check(plain.__name__)


def test_t5_which_asks_a_layer_for_its_weight(checkpoint_of):
    loaded = checkpoint_of(checkpoints.plain_t5)
    module = loaded.module()
    reference = vectors(states(module), loaded.held_out)
    quantize_linears(module, loaded.fitting)
    assert measure(reference, vectors(states(module), loaded.held_out)).mean_cosine > 0.98


@pytest.fixture(scope="module")
def bert(checkpoint_of):
    return checkpoint_of(checkpoints.plain_bert)


@pytest.fixture(scope="module")
def int8_bert(bert):
    return quantize_linears(bert.module(), bert.fitting)


def test_a_text_does_not_depend_on_its_batch(bert, int8_bert):
    """Its vector is that of the text alone, whatever the company, up to a rare level that rounds the other way."""
    texts = [*checkpoints.TEXTS, "0 9 8 7 6 5 4 3 2 1 " * 3]
    rows = bert.rows(texts)
    for ids, mask in bert.batches(texts):
        together = states(int8_bert)(ids, mask)
        for row, real, found in zip(ids, mask, together, strict=True):
            assert any(np.array_equal(row[real], known) for known in rows)
            alone = states(int8_bert)(row[real][None], real[real][None])[0]
            assert torch.nn.functional.cosine_similarity(alone, found[torch.from_numpy(real)], dim=1).min() > 0.9999


def test_the_same_calibration_gives_the_same_layers(bert, int8_bert):
    again = quantize_linears(bert.module(), bert.fitting).state_dict()
    for name, tensor in int8_bert.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_saved_and_loaded_is_the_same(bert, int8_bert, tmp_path):
    path = tmp_path / "int8.safetensors"
    save_quantized(int8_bert, path)
    warm = load_quantized(bert.module(), path)
    for ids, mask in bert.held_out:
        torch.testing.assert_close(states(warm)(ids, mask), states(int8_bert)(ids, mask), rtol=0, atol=0)


def test_a_shared_layer_is_saved_once(tmp_path):
    shared = nn.Linear(WIDTH, WIDTH)
    body = nn.Sequential(shared, nn.Tanh(), shared)
    original = copy.deepcopy(Small(body))
    module, _ = quantized(body)
    save_quantized(module, tmp_path / "int8")
    assert {name.rpartition(".")[0] for name in load_file(tmp_path / "int8")} == {"body.0"}
    warm = load_quantized(original, tmp_path / "int8")
    assert isinstance(warm.body[0], Int8Linear)
    assert warm.body[0] is warm.body[2]


def _other_format(path):
    save_file(load_file(path), path, metadata={"format": "something else"})


def _without_a_tensor(path):
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if name.endswith(".scale")))
    save_file(tensors, path, metadata={"format": "millpond int8 linear 1"})


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "cannot be read as int8 weights"),
        (lambda path: path.write_bytes(b"\x00" * 100), "cannot be read as int8 weights"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read as int8 weights"),
        (_other_format, "was not written by this version"),
        (_without_a_tensor, "does not fit this encoder"),
    ],
)
def test_a_damaged_file_is_refused_and_changes_nothing(bert, int8_bert, tmp_path, damage, problem):
    path = tmp_path / "int8.safetensors"
    save_quantized(int8_bert, path)
    damage(path)
    module = bert.module()
    with pytest.raises(CheckpointError, match=problem):
        load_quantized(module, path)
    assert not any(isinstance(part, Int8Linear) for part in module.modules())


def wider_bert(folder):
    return checkpoints.plain_bert(folder, intermediate_size=48)


def test_the_file_of_another_encoder_is_refused(int8_bert, checkpoint_of, tmp_path):
    save_quantized(int8_bert, tmp_path / "int8")
    other = checkpoint_of(wider_bert)
    with pytest.raises(CheckpointError, match="does not fit this encoder"):
        load_quantized(other.module(), tmp_path / "int8")
