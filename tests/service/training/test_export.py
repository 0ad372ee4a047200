"""A model with a fitted pooler in it: as sentence-transformers loads it and as Millpond serves it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize

import pooling
from pooling.sentence_transformers import LearnedPooling
from service.checkpoint import read_checkpoint
from service.errors import CheckpointError, ConfigError, InvalidInput
from service.training import export
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    close,
    edit,
    embed,
    plain_bert,
    plain_llama,
    sentence_transformer,
    served,
)

LONG = "the wheel turns and turns " * 9
SPECS = ("attention", "gated", "multihead_attention(heads=3, split_heads=true, projection=true)", "gem(p=2)")


def fitted(spec="multihead_attention(heads=3, split_heads=true, projection=true)", dim=DIM, seed=0):
    pooler = pooling.build(spec, dim)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in pooler.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator).mul_(0.3))
    pooler.mark_trained()
    return pooler


def reference(folder):
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=True)


def exported(source, folder, pooler=None, max_tokens=20):
    folder.mkdir()
    export.save(folder, read_checkpoint(str(source)), pooler or fitted(), max_tokens)
    return folder


def types(folder):
    return [module["type"] for module in json.loads((folder / "modules.json").read_text())]


def assert_equal(folder, texts=(*TEXTS, LONG), **settings):
    wanted = reference(folder).encode(list(texts))
    with served(folder, **settings) as models:
        assert models.get().recipe.declared and not models.get().recipe.warnings
        found = embed(models, list(texts), truncate="right")
    assert close(found, wanted)
    return found


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("spec", SPECS)
def test_of_a_plain_encoder(bert, tmp_path, spec):
    pooler = fitted(spec)
    folder = exported(bert, tmp_path / "out", pooler)
    found = assert_equal(folder)
    settings = {"pooling": {"weights": str(folder / "pooler")}, "max_tokens": 20}
    with served(bert, **settings) as models:
        assert np.array_equal(embed(models, [*TEXTS, LONG], truncate="right"), found)
    with served(bert, pooling="mean", max_tokens=20) as models:
        assert not close(embed(models, [*TEXTS, LONG], truncate="right"), found, 1e-3)


def test_of_a_causal_one_that_pads_at_the_left(tmp_path):
    assert_equal(exported(plain_llama(tmp_path / "llama"), tmp_path / "out"))


def test_what_follows_pooling_prompts_and_length_stay(bert, tmp_path):
    torch.manual_seed(0)
    head = (Dense(DIM, 10), LayerNorm(10), Normalize())
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    source = sentence_transformer(bert, tmp_path / "source", "cls", *head, include_prompt=False, **prompts)
    folder = exported(source, tmp_path / "out")
    found = assert_equal(folder)
    assert found.shape == (7, 10) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    kinds = [kind.rpartition(".")[2] for kind in types(folder)]
    assert kinds == ["Transformer", "LearnedPooling", "Dense", "LayerNorm", "Normalize"]
    twice = exported(folder, tmp_path / "twice", fitted(seed=1))
    assert not close(assert_equal(twice), found, 1e-3)


def test_saved_again_by_sentence_transformers_it_is_the_same(bert, tmp_path):
    folder = exported(bert, tmp_path / "out")
    reference(folder).save(str(tmp_path / "again"))
    assert np.array_equal(assert_equal(folder), assert_equal(tmp_path / "again"))
    assert types(folder)[1] == types(tmp_path / "again")[1] == "millpond.LearnedPooling"


def test_a_folder_of_an_earlier_release_is_read(bert, tmp_path):
    folder = exported(bert, tmp_path / "out")
    found = assert_equal(folder)
    modules = (folder / "modules.json").read_text()
    former = modules.replace("millpond.LearnedPooling", "pooling.sentence_transformers.LearnedPooling")
    assert former != modules
    (folder / "modules.json").write_text(former)
    assert np.array_equal(assert_equal(folder), found)
    assert types(exported(folder, tmp_path / "anew"))[1] == "millpond.LearnedPooling"


def test_the_encoder_is_the_same_one_and_takes_no_further_room(bert, tmp_path):
    folder = exported(bert, tmp_path / "out")
    assert (folder / "model.safetensors").samefile(bert / "model.safetensors")
    with served(bert, pooling="mean") as one, served(folder) as two:
        assert one.get().encoder.fingerprint == two.get().encoder.fingerprint
        assert one.get().fingerprint != two.get().fingerprint


def test_on_another_file_system_weights_are_copied(bert, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(export.os, "link", refuse)
    folder = exported(bert, tmp_path / "out")
    weights = [path / "model.safetensors" for path in (folder, bert)]
    assert not weights[0].samefile(weights[1])
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_request_may_ask_for_another_pooling_and_back(bert, tmp_path):
    folder = exported(bert, tmp_path / "out")
    with served(folder, pooling="mean") as models:
        assert "overrides the declared 'multihead_attention(" in models.get().recipe.warnings[0]
        asked = embed(models, TEXTS, "declared")
        with pytest.raises(InvalidInput, match="is learned and has no fitted parameters here"):
            models.get(None, models.get(None, "declared").recipe.pooler.spec)
        with pytest.raises(InvalidInput, match="no option 'weights'"):
            models.get(None, {"strategy": "attention", "weights": str(folder / "pooler")})
    with served(folder) as models:
        assert np.array_equal(embed(models, TEXTS), asked)
        assert models.get(None, "declared") is models.get()
        assert not close(embed(models, TEXTS, "mean"), asked, 1e-3)


def test_what_is_wrong_with_a_folder_is_said(bert, tmp_path):
    folder = exported(bert, tmp_path / "out")
    edit(folder / "pooler" / "config.json", heads=3)
    with pytest.raises(CheckpointError, match=r"pooler/config.json: \['heads'\] is not known here"):
        read_checkpoint(str(folder))
    edit(folder / "pooler" / "config.json", heads=None)
    (folder / "pooler" / "pooler.json").unlink()
    with pytest.raises(CheckpointError, match=r"pooler/pooler.json: is missing or describes no pooler"):
        read_checkpoint(str(folder))
    folder = exported(bert, tmp_path / "wide", fitted(dim=2 * DIM))
    with pytest.raises(ConfigError, match=f"was fitted for token states of {2 * DIM} dimensions; this encoder has"):
        served(folder).__enter__()


def test_texts_without_padding_between_them():
    module = LearnedPooling(fitted("attention"), include_prompt=False)
    states = torch.randn(3, 5, DIM)
    lengths = [5, 2, 4]
    padded = {"token_embeddings": states, "attention_mask": pooling.masks.from_lengths(lengths).int()}
    flat = {
        "token_embeddings": torch.cat([row[:length] for row, length in zip(states, lengths, strict=True)]).unsqueeze(
            0
        ),
        "cu_seq_lens_q": torch.tensor([0, 5, 7, 11]),
    }
    for prompt in ({}, {"prompt_length": 1}):
        left, right = (module({**features, **prompt})["sentence_embedding"] for features in (padded, flat))
        assert torch.allclose(left, right, atol=1e-6)
    assert module.get_embedding_dimension() == DIM
    half = module({**padded, "token_embeddings": states.bfloat16()})["sentence_embedding"]
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_exists_is_not_written_over(tmp_path, kind):
    path = tmp_path / "out"
    (path.touch() if kind == "file" else (path / "sub").mkdir(parents=True))
    with pytest.raises(ConfigError, match=r"--output .*out: exists already; name a new folder, or remove it"):
        export.new_folder(path).__enter__()


def test_a_draft_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), export.new_folder(tmp_path / "a" / "out") as draft:
        (draft / "half").touch()
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []
    (tmp_path / "out").mkdir()  # an empty one will do
    with export.new_folder(tmp_path / "out") as draft:
        (draft / "whole").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--output .*: cannot be made"):
        export.new_folder(tmp_path / "file" / "out").__enter__()


@pytest.mark.parametrize(
    "limits",
    [
        {"processor_kwargs": {"model_max_length": 40}},
        {"tokenizer_args": {"model_max_length": 40, "use_fast": True}},
        {"processing_kwargs": {"text": {"max_length": 40}}, "processor_kwargs": {"model_max_length": 30}},
    ],
)
def test_the_longest_text_is_that_of_the_fit_wherever_it_was_declared(bert, tmp_path, limits):
    source = sentence_transformer(bert, tmp_path / "source")
    edit(source / "sentence_bert_config.json", **limits)
    folder = exported(source, tmp_path / "model", max_tokens=12)
    assert read_checkpoint(str(folder)).max_tokens == 12
    assert_equal(folder)
