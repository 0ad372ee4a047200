"""The modules after pooling, and the formulas they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from service.checkpoint import HeadModule
from service.embedding.head import Head
from service.errors import CheckpointError

TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"
VECTORS = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
WEIGHT = torch.tensor([[1.0, -1.0], [0.5, 0.5], [0.0, 2.0]])
BIAS = torch.tensor([0.1, 0.2, 0.3])


def dense(folder: Path, *, weight=WEIGHT, bias=BIAS, residual=None, **config) -> HeadModule:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"linear.weight": weight, "linear.bias": bias, "residual.weight": residual}
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / "model.safetensors")
    sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    return HeadModule("Dense", {**sizes, **config}, folder)


def test_no_modules():
    head = Head([], 2)
    assert (head.output_dim, head.normalize, head.fingerprint()) == (2, False, "")
    assert torch.equal(head(VECTORS), VECTORS)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (None, torch.tanh),  # the default of sentence-transformers
        (TANH, torch.tanh),
        (IDENTITY, lambda x: x),
        ("torch.nn.modules.activation.ReLU", torch.relu),
        ("torch.nn.modules.activation.GELU", torch.nn.functional.gelu),
    ],
)
def test_dense(tmp_path, activation, expected):
    config = {} if activation is None else {"activation_function": activation}
    head = Head([dense(tmp_path, **config)], 2)
    assert head.output_dim == 3
    torch.testing.assert_close(head(VECTORS), expected(VECTORS @ WEIGHT.T + BIAS))


def test_dense_without_bias(tmp_path):
    head = Head([dense(tmp_path, bias=None, activation_function=IDENTITY)], 2)
    torch.testing.assert_close(head(VECTORS), VECTORS @ WEIGHT.T)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": WEIGHT.clone().index_put((torch.tensor(1), torch.tensor(0)), torch.tensor(float("nan")))}, "NaN"),
        ({"bias": torch.tensor([0.1, float("inf"), 0.3])}, "NaN or infinity in linear.bias"),
        ({"weight": torch.zeros(3, 2)}, "nothing but zeros in linear.weight"),
    ],
)
def test_weights_that_give_no_vector(tmp_path, tensors, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        Head([dense(tmp_path, **tensors)], 2)
    assert str(tmp_path / "model.safetensors") in str(caught.value)


def test_residual_is_added_after_the_activation(tmp_path):
    same = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    head = Head([dense(tmp_path / "same", weight=same, bias=None, use_residual=True)], 2)
    torch.testing.assert_close(head(VECTORS), torch.tanh(VECTORS @ same.T) + VECTORS)
    residual = torch.arange(6.0).reshape(3, 2)
    head = Head([dense(tmp_path / "other", residual=residual, use_residual=True)], 2)
    torch.testing.assert_close(head(VECTORS), torch.tanh(VECTORS @ WEIGHT.T + BIAS) + VECTORS @ residual.T)


@pytest.mark.parametrize("size", [10**9, 10**30, -1])
def test_sizes_that_are_not_those_of_the_weights(tmp_path, size):
    """They are told without the memory that they would take."""
    with pytest.raises(CheckpointError, match=r"not this Dense's: .*size mismatch|does not describe a Dense"):
        Head([dense(tmp_path, in_features=size, out_features=size)], 2)


def test_layer_norm(tmp_path):
    tensors = {"norm.weight": torch.tensor([2.0, 3.0]), "norm.bias": torch.tensor([0.0, 1.0])}
    save_file(tensors, tmp_path / "model.safetensors")
    head = Head([HeadModule("LayerNorm", {"dimension": 2}, tmp_path)], 2)
    # The smaller of two numbers normalises to -1, the larger to 1.
    torch.testing.assert_close(head(VECTORS), torch.tensor([[-2.0, 4.0], [-2.0, 4.0]]), rtol=1e-4, atol=1e-4)


def test_a_closing_normalize_is_told_and_others_are_run(tmp_path):
    normalize, dropout = HeadModule("Normalize", {}, tmp_path), HeadModule("Dropout", {"dropout": 0.9}, tmp_path)
    closing = Head([dense(tmp_path), normalize, dropout], 2)
    assert closing.normalize
    assert not torch.allclose(closing(VECTORS).norm(dim=1), torch.ones(2))
    inner = Head([normalize, dense(tmp_path, activation_function=IDENTITY)], 2)
    assert not inner.normalize
    unit = VECTORS / VECTORS.norm(dim=1, keepdim=True)
    torch.testing.assert_close(inner(VECTORS), unit @ WEIGHT.T + BIAS)


def test_sizes_must_fit(tmp_path):
    with pytest.raises(CheckpointError, match="Dense takes vectors of 2 dimensions and would be given 4"):
        Head([dense(tmp_path)], 4)
    narrow = dense(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="Dense takes vectors of 2 dimensions and would be given 3"):
        Head([dense(tmp_path), narrow], 2)
    save_file({"norm.weight": torch.ones(5), "norm.bias": torch.ones(5)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="LayerNorm takes vectors of 5 dimensions and would be given 2"):
        Head([HeadModule("LayerNorm", {"dimension": 5}, tmp_path)], 2)


def test_weights_in_half_precision_are_used_in_full(tmp_path):
    module = dense(tmp_path, weight=WEIGHT.half(), bias=BIAS.half(), activation_function=IDENTITY)
    assert Head([module], 2)(VECTORS).dtype == torch.float32


def test_fingerprint(tmp_path):
    heads = [
        [],
        [dense(tmp_path / "a")],
        [dense(tmp_path / "b", weight=WEIGHT + 1e-3)],
        [dense(tmp_path / "c", activation_function=IDENTITY)],
        [dense(tmp_path / "d", bias=None)],
        [
            dense(tmp_path / "e"),
            HeadModule("Normalize", {}, tmp_path),
            dense(tmp_path / "f", weight=torch.ones(3, 3)),
        ],
        [dense(tmp_path / "e"), dense(tmp_path / "f", weight=torch.ones(3, 3))],
    ]
    found = [Head(modules, 2).fingerprint() for modules in heads]
    assert len(set(found)) == len(found)
    again = Head([dense(tmp_path / "elsewhere"), HeadModule("Normalize", {}, tmp_path)], 2)
    assert again.fingerprint() == found[1]


def test_nothing_is_trained(tmp_path):
    head = Head([dense(tmp_path)], 2)
    assert not head.training
    assert not any(parameter.requires_grad for parameter in head.parameters())
