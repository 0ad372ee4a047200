"""Models of a config: sharing, overriding, warning, refusing."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Normalize

import pooling
from service.config import Config
from service.embedding.models import Models
from service.errors import ConfigError, InvalidInput, UnknownModel
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    close,
    edit,
    embed,
    plain_bert,
    plain_llama,
    plain_t5,
    sentence_transformer,
    served,
    token_states,
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def declared(plain, tmp_path_factory):
    return sentence_transformer(plain, tmp_path_factory.mktemp("declared") / "model", "mean", Normalize())


def load(**models) -> Models:
    return Models(Config.model_validate({"models": models, "runtime": {"threads": 1}}))


def refused(folder: Path, kind=ConfigError, **settings) -> str:
    with pytest.raises(kind) as caught, served(folder, **settings):
        pass
    return str(caught.value)


def saved(spec: str, folder: Path, dim: int = DIM, trained: bool = True) -> pooling.Pooler:
    pooler = pooling.build(spec, dim)
    for weight in pooler.parameters():
        torch.nn.init.normal_(weight)
    if trained:
        pooler.mark_trained()
    pooler.save(folder)
    return pooler


def test_undeclared_pooling_names_the_choices(plain, tmp_path):
    message = refused(plain)
    assert message.startswith("models.default")
    assert "declares no pooling, so one must be chosen. This encoder is bidirectional: 'mean'" in message
    for name in pooling.available():
        assert name in message
    message = refused(plain_llama(tmp_path / "llama"))
    assert "This encoder is causal: 'last' if it was trained for that, else 'weighted_mean'" in message


def test_chosen_pooling_on_a_plain_encoder_warns_of_nothing(plain):
    with served(plain, pooling="mean") as models:
        assert list(models.get("default").recipe.warnings) == []
        assert not models.get().recipe.normalize


def test_overriding_a_declaration_warns_with_both_names(declared, caplog):
    with caplog.at_level(logging.WARNING), served(declared, pooling="cls") as models:
        assert list(models.get("default").recipe.warnings) == ["pooling 'cls' overrides the declared 'mean'"]
    assert "models.default: pooling 'cls' overrides the declared 'mean'" in caplog.text


def test_naming_the_declared_pooling_is_no_override(declared):
    with served(declared, pooling="mean") as models:
        assert list(models.get("default").recipe.warnings) == []


@pytest.mark.parametrize("spec", ["attention", "gated", "multihead_attention(heads=4)", {"strategy": "attention"}])
def test_an_untrained_learned_pooler_warns_and_is_the_mean(declared, spec):
    with served(declared, pooling=spec) as models, served(declared) as mean:
        assert any(
            "is learned and untrained; give it fitted weights" in note
            for note in list(models.get("default").recipe.warnings)
        )
        if "multihead" not in str(spec):
            assert close(embed(models, TEXTS), embed(mean, TEXTS))


def test_max_after_attention_warns(declared):
    with served(declared, pooling="attention > max") as models:
        assert any("'max'" in note and "attention" in note for note in list(models.get("default").recipe.warnings))


def test_a_saved_pooler(declared, tmp_path):
    pooler = saved("attention", tmp_path / "pooler")
    with served(declared, pooling={"strategy": "attention", "weights": str(tmp_path / "pooler")}) as models:
        assert not any("untrained" in note for note in list(models.get("default").recipe.warnings))
        assert models.get().recipe.pooler.fingerprint() == pooler.fingerprint()
        states = token_states(models.get(), TEXTS[:1], max_total=100)[0].states
        expected = pooler(torch.from_numpy(states)[None], torch.ones(1, len(states), dtype=torch.bool))
        assert close(embed(models, TEXTS[:1], normalize=False), expected.detach().numpy())


def test_a_saved_pooler_that_was_never_fitted_warns(declared, tmp_path):
    saved("gated", tmp_path / "pooler", trained=False)
    with served(declared, pooling={"weights": str(tmp_path / "pooler")}) as models:
        assert any("untrained" in note for note in list(models.get("default").recipe.warnings))


def test_saved_poolers_that_do_not_fit(declared, tmp_path):
    saved("attention", tmp_path / "wide", dim=DIM + 1)
    message = refused(declared, pooling={"strategy": "attention", "weights": str(tmp_path / "wide")})
    assert message.startswith("models.default.pooling: ")
    assert f"fitted for token states of {DIM + 1} dimensions; this encoder has {DIM}" in message
    saved("attention", tmp_path / "right")
    message = refused(declared, pooling={"strategy": "gated", "weights": str(tmp_path / "right")})
    assert "holds 'attention', which is not strategy: 'gated'" in message
    message = refused(declared, pooling={"strategy": "attention", "weights": str(tmp_path / "none")})
    assert "pooler.json: not found" in message
    message = refused(declared, pooling={"strategy": "attention", "weights": 3})
    assert "weights must be the folder of a saved pooler, not 3" in message
    (tmp_path / "right" / "pooler.safetensors").write_bytes(b"nothing")
    assert "cannot be read" in refused(declared, pooling={"weights": str(tmp_path / "right")})


@pytest.mark.parametrize("spec", ["men", "gem(q=3)", "mean+", ["mean", "mxa"], {"strategy": "men"}, {"a": 1}, ""])
def test_unknown_poolings(declared, spec):
    assert refused(declared, pooling=spec).startswith("models.default.pooling: ")


def test_max_tokens(declared, tmp_path):
    assert "models.default.max_tokens: 65 is more than the 64 positions" in refused(declared, max_tokens=65)
    assert "leaves no room beside the 2 special tokens" in refused(declared, max_tokens=2)
    with served(declared, max_tokens=64) as models:
        assert models.get().recipe.max_tokens == 64
    with served(declared, max_tokens=3) as models:
        assert models.get().recipe.max_tokens == 3


def test_no_known_length(plain, tmp_path):
    t5 = plain_t5(tmp_path / "model")
    edit(t5 / "tokenizer_config.json", model_max_length=10**30)
    message = refused(t5, pooling="mean")
    assert "models.default.max_tokens" in message
    assert "give a number here" in message
    with served(t5, pooling="mean", max_tokens=100) as models:
        assert models.get().recipe.max_tokens == 100


def test_weighted_mean_without_the_prompt_is_ambiguous(plain, tmp_path):
    folder = sentence_transformer(
        plain, tmp_path / "model", "weightedmean", include_prompt=False, prompts={"query": "q: "}
    )
    message = refused(folder)
    assert "weighted_mean without the prompt's tokens is ambiguous" in message
    with served(folder, prompts={}):
        pass
    with served(folder, pooling="mean"):
        pass


@pytest.mark.slow
def test_models_of_one_folder_share_an_encoder(declared, plain, tmp_path):
    (tmp_path / "link").symlink_to(declared)
    models = load(
        a={"encoder": str(declared)},
        b={"encoder": str(declared), "pooling": "cls"},
        c={"encoder": str(tmp_path / "link"), "normalize": False},
        d={"encoder": str(plain), "pooling": "mean"},
    )
    try:
        assert len({id(model.encoder) for _, model in models}) == 2
        assert models.get("a").encoder is models.get("b").encoder is models.get("c").encoder
        assert len({models.get(name).fingerprint for name in "abc"}) == 3
        assert models.default == "a"
        assert models.get() is models.get("a")
        assert models.encoders.alive
    finally:
        models.close()
    assert not models.encoders.alive


def test_requests_for_several_poolings_share_passes(declared, monkeypatch):
    models = load(a={"encoder": str(declared)}, b={"encoder": str(declared), "pooling": "cls"})
    try:
        a, b = models.get("a"), models.get("b")
        expected = [asyncio.run(model.embed(TEXTS)).vectors for model in (a, b)]
        before = a.encoder.batcher.passes
        run = a.encoder.batcher.run
        submitted = threading.Semaphore(0)

        def hold(states, mask, ids):
            assert all(submitted.acquire(timeout=20) for _ in range(16))
            return [states[0].numpy()]

        async def run_and_tell(*arguments):
            running = asyncio.ensure_future(run(*arguments))
            await asyncio.sleep(0)  # its first step puts it into the queue
            submitted.release()
            return await running

        async def many():
            held = a.encoder.batcher.submit([np.array([5, 6])], hold)  # the only stream; the rest must wait for it
            monkeypatch.setattr(a.encoder.batcher, "run", run_and_tell)
            found = await asyncio.gather(*(model.embed(TEXTS) for _ in range(8) for model in (a, b)))
            held.result()
            return found

        found = asyncio.run(many())
        for place, vectors in enumerate(found):
            assert close(vectors.vectors, expected[place % 2])
        assert a.encoder.batcher.passes - before < 16
    finally:
        models.close()


def test_unknown_models(declared):
    with (
        served(declared) as models,
        pytest.raises(UnknownModel, match=r"served are 'default'. Did you mean 'default'"),
    ):
        models.get("defualt")


def test_pooling_by_request(declared):
    with served(declared) as models, served(declared, pooling="gem(p=4)") as gem:
        assert close(embed(models, TEXTS, "gem(p=4)"), embed(gem, TEXTS))
        assert close(embed(models, TEXTS, {"strategy": "gem", "p": 4.0}), embed(gem, TEXTS))
        assert models.get(None, "gem(p=4)") is models.get(None, "gem(p=4)")
        assert models.get(None, "declared") is models.get()
        assert models.get(None, "gem(p=4)").fingerprint == gem.get().fingerprint
        assert embed(models, TEXTS, ["mean", "max"]).shape == (len(TEXTS), 2 * DIM)
        assert close(embed(gem, TEXTS, "declared"), embed(models, TEXTS))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("attention", "is learned and has no fitted parameters here"),
        ("mean+gated", "is learned"),
        ("men", "did you mean 'mean'"),
        ({"strategy": "attention", "weights": "/etc"}, "no option 'weights'"),
        (["mean"] * 3000, "characters"),
        ("multihead_attention(heads=1000000)", "must be a whole number from 1 to"),
    ],
)
def test_poolings_that_a_request_may_not_ask_for(declared, spec, words):
    with served(declared) as models, pytest.raises(InvalidInput) as caught:
        models.get(None, spec)
    assert str(caught.value.where) == "pooling"
    assert words in str(caught.value)


def test_declared_by_request_where_nothing_is(plain):
    with served(plain, pooling="mean") as models, pytest.raises(InvalidInput, match="declares no pooling"):
        models.get(None, "declared")


def test_a_model_that_cannot_be_loaded_leaves_no_threads(declared, plain):
    def streams():
        return {thread for thread in threading.enumerate() if thread.name.startswith("stream-")}

    before = streams()
    with pytest.raises(ConfigError):
        load(a={"encoder": str(declared)}, b={"encoder": str(plain)})
    assert streams() <= before


@pytest.mark.slow
def test_every_config_that_is_shipped_loads():
    from service.config import load_config

    for path in sorted((Path(__file__).parents[3] / "configs").glob("*.yaml")):
        models = Models(load_config(path, env={"MILLPOND_RUNTIME__THREADS": "1"}))
        try:
            assert np.isfinite(embed(models, ["A mill."])).all(), path
            assert len({id(model.encoder) for _, model in models}) == 1
        finally:
            models.close()
