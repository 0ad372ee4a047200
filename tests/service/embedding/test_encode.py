"""`Embedder.encode` beside sentence-transformers' method of this name."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from service.embedding.embedder import Embedder
from service.errors import CheckpointError, ConfigError, InvalidInput
from tests.support.checkpoints import DIM, TEXTS, close, plain_bert, reference, sentence_transformer

PROMPTS = {"query": "query: ", "document": "passage: ", "classify": "represent the sentence: "}
RUNTIME = {"backend": "torch", "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module", params=["normalised", "lengths", "head"])
def both(request, plain, tmp_path_factory):
    """The same folder as sentence-transformers and as Millpond load it."""
    head = {"normalised": [Normalize()], "lengths": [], "head": [Dense(DIM, 16), Normalize()]}[request.param]
    folder = tmp_path_factory.mktemp("model") / request.param
    sentence_transformer(plain, folder, "mean", *head, prompts=PROMPTS, default_prompt_name="classify")
    with Embedder.load(str(folder), runtime=RUNTIME) as model:
        yield reference(folder), model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt_name": "query"},
        {"prompt": "the wheel: "},
        {"prompt": "the wheel: ", "prompt_name": "query"},
        {"batch_size": 2},
        {"show_progress_bar": True},
        {"normalize_embeddings": True},
        {"truncate_dim": 7},
        {"truncate_dim": 7, "normalize_embeddings": True},
    ],
)
def test_options_mean_what_they_do_to_sentence_transformers(both, options):
    theirs, ours = both
    assert close(ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options))


def test_queries_and_documents_have_their_prompts(both):
    theirs, ours = both
    assert close(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert close(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    assert close(ours.encode_query(TEXTS, prompt_name="classify"), theirs.encode_query(TEXTS, prompt_name="classify"))


def test_a_single_text_has_one_vector_and_a_long_one_is_cut(both):
    theirs, ours = both
    long = " ".join(TEXTS * 5)
    assert ours.encode(long).shape == (ours.dim,)
    assert close(ours.encode(long), theirs.encode(long))
    assert ours.encode(tuple(TEXTS)).shape == (len(TEXTS), ours.dim)
    assert ours.encode([]).shape == (0, ours.dim)
    assert ours.encode(TEXTS).dtype == np.float32


def test_a_declared_truncation_is_kept_unless_another_is_asked_for(plain, tmp_path):
    folder = sentence_transformer(plain, tmp_path / "model", "mean", Normalize(), truncate_dim=9)
    theirs = reference(folder)
    with Embedder.load(str(folder), runtime=RUNTIME) as ours:
        for options in ({}, {"normalize_embeddings": True}, {"truncate_dim": 12}):
            assert close(ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options))


def test_it_is_safe_in_a_running_event_loop_and_in_several_threads(both):
    _, ours = both
    alone = ours.encode(TEXTS)
    found = []

    async def in_a_loop():
        found.append(ours.encode(TEXTS))
        found.append((await ours.embed(TEXTS)).vectors)

    asyncio.run(in_a_loop())
    threads = [threading.Thread(target=lambda: found.append(ours.encode(TEXTS * 50)[-6:])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(close(each, alone) for each in found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_name": "quer"}, "has no prompt 'quer'.*Did you mean 'query'"),
        ({"truncate_dim": 0}, "truncate_dim must be from 1 to"),
        ({"truncate_dim": 1000}, "truncate_dim must be from 1 to"),
    ],
)
def test_what_cannot_be_is_refused(both, options, words):
    _, ours = both
    with pytest.raises(InvalidInput, match=words):
        ours.encode(TEXTS, **options)
    with pytest.raises(InvalidInput, match="the text '' is empty"):
        ours.encode([*TEXTS, ""])


# Loading


def test_a_pooling_and_other_settings_are_chosen_by_name(plain, tmp_path):
    with Embedder.load(str(plain), pooling="cls", normalize=True, runtime=RUNTIME) as model:
        assert (model.recipe.pooler.spec, model.recipe.normalize) == ("cls", True)
        assert close(np.linalg.norm(model.encode(TEXTS), axis=1), np.ones(len(TEXTS)))


def test_what_cannot_be_loaded_leaves_no_thread(plain, tmp_path):
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match=r"Embedder\.load: models\.default\.poling.*Did you mean 'pooling'"):
        Embedder.load(str(plain), poling="mean")
    with pytest.raises(ConfigError, match="declares no pooling, so one must be chosen"):
        Embedder.load(str(plain))
    with pytest.raises(ConfigError, match="more than the 64 positions"):
        Embedder.load(str(plain), pooling="mean", max_tokens=1000, runtime=RUNTIME)
    with pytest.raises(CheckpointError):
        Embedder.load(str(tmp_path / "nothing"), pooling="mean")
    assert set(threading.enumerate()) == before


def test_its_threads_end_with_the_block(plain):
    before = set(threading.enumerate())
    with Embedder.load(str(plain), pooling="mean", runtime=RUNTIME) as model:
        model.encode("a mill")
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("gap", [None, float("nan"), b"abc", [101, 102], 7])
def test_what_is_no_text_is_refused_by_its_index(both, gap):
    _, model = both
    with pytest.raises(InvalidInput, match=r"texts\[1\] is .*give strings") as raised:
        model.encode(["the wheel", gap, "the mill"])
    assert raised.value.where.index == 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_a_text(both, size):
    _, model = both
    with pytest.raises(InvalidInput, match=f"batch_size must be 1 or more, not {size}"):
        model.encode(["the wheel"], batch_size=size)
