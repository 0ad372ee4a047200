"""Layers of tokens between encoder and pooling, as sentence-transformers has them."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from service.config import Config
from service.embedding.models import Models
from service.errors import CheckpointError, InvalidInput
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    close,
    edit,
    embed,
    plain_bert,
    plain_llama,
    reference,
    served,
    token_states,
)

TOKENS = "token_embeddings"


def saved(plain: Path, folder: Path, *layers: Dense, pooling: str = "mean", dim: int = 9) -> Path:
    """`plain` with layers of tokens, pooling, and a Dense after it."""
    torch.manual_seed(4)
    after = Dense(dim, 5), Normalize()
    modules = [Transformer(str(plain)), *layers, Pooling(dim, pooling), *after]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def of_tokens(start: int, end: int, **settings: object) -> Dense:
    return Dense(start, end, module_input_name=TOKENS, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("layers")
    torch.manual_seed(4)
    layers = of_tokens(DIM, 12), of_tokens(12, 9, bias=False, use_residual=True, module_output_name=TOKENS)
    return saved(plain_bert(path / "plain"), path / "model", *layers)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught, served(folder):
        pass
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_each_state_goes_through_the_layers(folder, backend):
    expected = reference(folder)
    with served(folder, runtime={"backend": backend}) as models:
        assert close(embed(models, TEXTS), expected.encode(TEXTS))
        states = [found.states for found in token_states(models.get(), TEXTS, max_total=1000)]
    for ours, theirs in zip(states, expected.encode(TEXTS, output_value=TOKENS), strict=True):
        assert close(ours, theirs.numpy())


def test_they_come_before_any_pooling(tmp_path):
    torch.manual_seed(5)
    folder = saved(plain_llama(tmp_path / "plain"), tmp_path / "model", of_tokens(DIM, 9), pooling="lasttoken")
    with served(folder) as models:
        assert close(embed(models, TEXTS), reference(folder).encode(TEXTS))
    with served(folder, pooling="max") as models:
        states = token_states(models.get(), TEXTS[:1], max_total=100)[0].states
        assert states.shape[1] == models.get().recipe.pooler.dim == 9


def test_they_are_part_of_the_fingerprint(folder, tmp_path):
    other = tmp_path / "other"
    torch.manual_seed(6)
    saved(plain_bert(tmp_path / "plain"), other, of_tokens(DIM, 12), of_tokens(12, 9))
    with served(folder) as one, served(other) as two:
        parts = one.get().fingerprint_parts, two.get().fingerprint_parts
    assert {key for key in parts[0] if parts[0][key] != parts[1][key]} == {"encoder"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"module_output_name": "sentence_embedding"}, ["after what stands before it"]),
        ({"module_input_name": "sentence_embedding"}, ["after what stands before it", "Dense of token_embeddings"]),
        ({"in_features": 7}, ["1_Dense", "size mismatch"]),
        ({"dropout": 0.1}, ["1_Dense", "dropout"]),
        ({"activation_function": "os.system"}, ["1_Dense", "os.system"]),
    ],
)
def test_others_are_refused(tmp_path, changes, words):
    folder = saved(plain_bert(tmp_path / "plain"), tmp_path / "model", of_tokens(DIM, 9))
    edit(folder / "1_Dense" / "config.json", **changes)
    refused(folder, *words)


def test_layers_of_another_size_or_damaged(tmp_path):
    plain = plain_bert(tmp_path / "plain")
    folder = saved(plain, tmp_path / "model", of_tokens(DIM, 9))
    wrong = saved(plain, tmp_path / "wrong", of_tokens(DIM - 1, 9))
    refused(wrong, "1_Dense", f"takes states of {DIM - 1} dimensions and would be given {DIM}")
    weights = folder / "1_Dense" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    refused(folder, str(weights), "damaged")
    weights.unlink()
    refused(folder, str(weights), "is missing")


def test_a_layer_of_tokens_behind_pooling_does_nothing_and_is_refused(folder, tmp_path):
    modules = json.loads((folder / "modules.json").read_text())
    plain = saved(plain_bert(tmp_path / "plain"), tmp_path / "model", of_tokens(DIM, 9))
    edit(plain / "3_Dense" / "config.json", module_input_name=TOKENS, module_output_name=TOKENS)
    assert len(modules) == 6
    refused(plain, "3_Dense", "is not the pooled vector")


@pytest.mark.parametrize("order", [("with", "without"), ("without", "with")])
def test_a_model_of_the_encoder_alone_beside_them(folder, tmp_path, order):
    """Both may be of one folder of weights, and share no states."""
    apart = tmp_path / "model"
    shutil.copytree(folder, apart)
    modules = json.loads((apart / "modules.json").read_text())
    (apart / "0_Transformer").mkdir()
    for file in [each for each in apart.iterdir() if each.is_file() and each.name != "modules.json"]:
        file.rename(apart / "0_Transformer" / file.name)
    modules[0]["path"] = "0_Transformer"
    (apart / "modules.json").write_text(json.dumps(modules))
    settings = {
        "with": {"encoder": str(apart)},
        "without": {"encoder": str(apart / "0_Transformer"), "pooling": "mean"},
    }
    runtime = {"backend": "torch", "precision": "fp32", "threads": 1}
    config = Config.model_validate({"models": {name: settings[name] for name in order}, "runtime": runtime})
    both = Models(config)
    try:
        found = {name: asyncio.run(both.get(name).embed(TEXTS)).vectors for name in order}
    finally:
        both.close()
    assert close(found["with"], reference(folder).encode(TEXTS))
    with served(apart / "0_Transformer", pooling="mean") as models:
        assert close(found["without"], embed(models, TEXTS))


def test_layers_of_the_encoder_are_not_asked_for_beside_them(folder):
    with served(folder) as models, pytest.raises(InvalidInput, match=r"declares a Dense of each token.*Leave it out"):
        models.get(None, None, {"use": ["first"]})
    with (
        pytest.raises(CheckpointError, match=r"declares a Dense of each token.*Leave `layers` out"),
        served(folder, layers={"use": ["first"]}),
    ):
        pass
