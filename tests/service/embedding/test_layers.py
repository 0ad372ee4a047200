"""Models that pool other layers than the last: as declared, as configured, and as requests ask."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer, WeightedLayerPooling

from service.checkpoint import read_checkpoint
from service.embedding.fingerprint import digest
from service.errors import CheckpointError, ConfigError, InvalidInput
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    close,
    edit,
    embed,
    plain_bert,
    plain_llama,
    plain_modernbert,
    plain_roberta,
    plain_t5,
    reference,
    sentence_transformer,
    served,
    token_states,
)

FIRST_LAST = {"use": ["first", "last"], "by": "mean"}
KINDS = [(plain_bert, 2), (plain_roberta, 2), (plain_llama, 2), (plain_t5, 2), (plain_modernbert, 4)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def bert(plain, tmp_path_factory):
    return sentence_transformer(plain, tmp_path_factory.mktemp("bert") / "model")


def weighted(plain, folder, weights, depth=2, **transformer):
    """Save a checkpoint with weights for its last layers, as sentence-transformers does."""
    layers = WeightedLayerPooling(
        DIM,
        num_hidden_layers=depth,
        layer_start=depth + 1 - len(weights),
        layer_weights=torch.nn.Parameter(torch.tensor(weights)),
    )
    asked = transformer or {"config_kwargs": {"output_hidden_states": True}}
    modules = [Transformer(str(plain), **asked), layers, Pooling(DIM, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_declared_weights_give_the_vectors_of_sentence_transformers(tmp_path, kind, depth):
    folder = weighted(kind(tmp_path / "plain"), tmp_path / "model", [0.5, 2.0, 1.25], depth)
    with served(folder) as models:
        found = embed(models, TEXTS)
        assert models.get().recipe.layers.used == tuple(range(depth - 2, depth + 1))
        last = embed(models, TEXTS, layers="last")
    theirs = reference(folder)
    assert close(found, theirs.encode(TEXTS))
    assert not close(last, theirs.encode(TEXTS), 1e-2)


@pytest.mark.slow
def test_declared_weights_on_openvino(plain, tmp_path):
    folder = weighted(plain, tmp_path / "model", [0.5, 2.0, 1.25])
    with served(folder, runtime={"backend": "openvino", "cache": tmp_path / "cache"}) as models:
        assert close(embed(models, TEXTS), reference(folder).encode(TEXTS))
        # Where one model of an encoder carries layers, requests may choose among them.
        assert embed(models, TEXTS, layers={"use": [0]}).shape == (len(TEXTS), DIM)


def test_what_sentence_transformers_passes_over_is_passed_over_and_told(plain, bert, tmp_path):
    folder = weighted(plain, tmp_path / "model", [1.0, 1.0], config_kwargs={"output_hidden_states": False})
    with served(folder) as models:
        assert close(embed(models, TEXTS), reference(folder).encode(TEXTS))
        (warning,) = models.get().recipe.warnings
    assert "WeightedLayerPooling" in warning and "output_hidden_states" in warning


def test_configured_layers_override_the_declared_ones(plain, tmp_path):
    folder = weighted(plain, tmp_path / "model", [1.0, 3.0])
    with served(folder, layers="last") as models:
        (warning,) = models.get().recipe.warnings
        assert "pooling the last layer overrides the declared layers" in warning
        declared = embed(models, TEXTS, layers="declared")
    assert close(declared, reference(folder).encode(TEXTS))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "layer_weights are not one for each of the 2 layers from layer_start 1 to num_hidden_layers 2"),
        ([1.0, -1.0], "layer_weights add up to 0.0"),
        ([1.0, float("nan")], "layer_weights add up to nan"),
    ],
)
def test_weights_that_cannot_be_followed(plain, tmp_path, weights, words):
    folder = weighted(plain, tmp_path / "model", [1.0, 1.0])
    file = folder / "1_WeightedLayerPooling" / "model.safetensors"
    save_file({"layer_weights": torch.tensor(weights)}, file)
    with pytest.raises(CheckpointError, match="1_WeightedLayerPooling") as caught:
        read_checkpoint(str(folder))
    assert words in str(caught.value)


def test_a_module_of_weights_that_is_damaged_or_of_another_encoder(plain, tmp_path):
    folder = weighted(plain, tmp_path / "model", [1.0, 1.0])
    module = folder / "1_WeightedLayerPooling"
    kept = load_file(module / "model.safetensors")
    (module / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing, damaged, or holds no layer_weights"):
        read_checkpoint(str(folder))
    save_file(kept, module / "model.safetensors")
    edit(module / "config.json", num_hidden_layers=5, layer_start=4)
    with pytest.raises(ConfigError, match="weights up to layer 5, and the encoder 2 layers"), served(folder):
        pass
    edit(module / "config.json", layer_start=-1)
    with pytest.raises(CheckpointError, match="layer_start"):
        read_checkpoint(str(folder))


def test_first_and_last_are_averaged(bert):
    module = reference(bert)[0].model
    with served(bert, layers=FIRST_LAST, normalize=False) as models:
        found = embed(models, TEXTS)
        ids = [text.ids for text in models.get().encoder.tokenizer.encode(TEXTS)]
        states = token_states(models.get(), TEXTS, max_total=1000)
    for vector, row, state in zip(found, ids, states, strict=True):
        with torch.inference_mode():
            hidden = module(input_ids=torch.from_numpy(row)[None], output_hidden_states=True).hidden_states
        mixed = ((hidden[1] + hidden[2]) / 2)[0].numpy()
        assert close(state.states, mixed)
        assert close(vector, mixed.mean(0))


def test_the_default_keeps_its_fingerprint_and_other_layers_have_their_own(bert):
    with served(bert) as models:
        own = models.get()
        # What the parts were before there were layers.
        assert own.fingerprint_parts.keys() == {
            *("scheme", "encoder", "tokenizer", "max_tokens", "pooling", "pooling_parameters", "head"),
            *("normalize", "truncate_dim", "prompts", "default_prompt", "include_prompt"),
        }
        same = ["last", "declared", {"use": ["last"]}, {"use": [2], "by": "mean"}, {"last": 1}]
        assert {models.get(layers=each).fingerprint for each in same} == {own.fingerprint}
        others = [models.get(layers=each) for each in ({"use": [0]}, {"use": [1]}, FIRST_LAST)]
        assert len({own.fingerprint, *(each.fingerprint for each in others)}) == 4
        assert others[2].fingerprint == models.get(layers={"last": 2}).fingerprint
        parts = own.fingerprint_parts | {"layers": {"use": [1, 2], "by": "mean"}}
        assert others[2].fingerprint == digest(parts)
    with served(bert, layers=FIRST_LAST) as models:
        assert models.get().fingerprint == others[2].fingerprint


def test_spans_and_texts_in_any_company_have_the_layers_of_their_model(bert):
    with served(bert) as models:
        plain, mixed = models.get(), models.get(layers=FIRST_LAST)

        async def together():
            return await asyncio.gather(*(each.embed([text]) for text in TEXTS for each in (plain, mixed)))

        alone = [each.encode(text) for text in TEXTS for each in (plain, mixed)]
        for found, one in zip(asyncio.run(together()), alone, strict=True):
            assert close(found.vectors[0], one)
        (spans,) = asyncio.run(mixed.embed_spans([TEXTS[1]], [[(0, 9)]], most=9))
        (others,) = asyncio.run(plain.embed_spans([TEXTS[1]], [[(0, 9)]], most=9))
        (state,) = token_states(mixed, [TEXTS[1]], max_total=99)
        inside = [at for at, offset in enumerate(state.offsets) if offset is not None and offset[1] <= 9]
        assert close(spans.vectors[0], state.states[inside].mean(0))
        assert np.abs(spans.vectors - others.vectors).max() > 1e-2


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"use": [7]}, "models.default.layers: use: there is no layer 7; there are 0, the embeddings, to 2."),
        ({"use": [True]}, "models.default.layers: use: True is no layer"),
        ({"use": []}, "models.default.layers: use: [] lists no layers"),
        ({"last": 9}, "models.default.layers: last: 9 is not how many"),
        ("first", "models.default.layers: 'first' names no layers"),
    ],
)
def test_a_config_that_names_no_layers(bert, layers, words):
    with pytest.raises(ConfigError) as caught, served(bert, layers=layers):
        pass
    assert words in str(caught.value)


def test_a_request_for_layers_that_are_not_there(bert):
    with served(bert) as models:
        for layers, words in (
            ({"use": [3]}, "there is no layer 3"),
            ({"use": [1, 1]}, "is listed twice"),
            ({"use": [0], "by": "max"}, "by: 'max' is not known"),
            ({"use": list(range(5000))}, "characters; a request may ask for one of"),
        ):
            with pytest.raises(InvalidInput, match=r"^layers") as caught:
                models.get(layers=layers)
            assert words in str(caught.value)
            assert caught.value.where.field == "layers"


@pytest.mark.slow
def test_openvino_carries_layers_for_who_is_configured_with_some(bert, tmp_path):
    with served(bert, runtime={"backend": "openvino", "cache": tmp_path / "cache"}) as models:
        assert models.get(layers="last").fingerprint == models.get().fingerprint
        with pytest.raises(InvalidInput, match=r"runs without the states of its layers.*give some model"):
            models.get(layers=FIRST_LAST)
