"""Static models embed as sentence-transformers and model2vec do, through the same pooling stage as encoders."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from millpond import Embedder
from service.encoder.batcher import Batcher
from service.encoder.shapes import AnyShape
from service.encoder.words import Words
from service.errors import BrokenModel, CheckpointError, ConfigError, EmptyInput, TooLong, Unavailable
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    close,
    edit,
    embed,
    model2vec,
    reference,
    served,
    static,
    token_states,
    wordpiece,
)

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return static(tmp_path_factory.mktemp("static") / "model", Normalize())


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught, served(folder):
        pass
    assert all(word in str(caught.value) for word in words), str(caught.value)


def change(folder: Path, **tensors: np.ndarray | None) -> None:
    found = load_file(folder / WEIGHTS) | tensors
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, folder / WEIGHTS)


# Parity with sentence-transformers


@pytest.mark.parametrize("head", [(), (Normalize(),), (Dense(DIM, 7), Normalize())], ids=len)
def test_vectors_are_those_of_sentence_transformers(tmp_path, head):
    torch.manual_seed(3)
    folder = static(tmp_path / "model", *head, prompts={"query": "query: "}, truncate_dim=5)
    expected = reference(folder)
    with served(folder) as models:
        assert close(embed(models, TEXTS), expected.encode(TEXTS))
        assert close(embed(models, TEXTS, role="query"), expected.encode(TEXTS, prompt_name="query"))
        assert models.get().encode(TEXTS).shape == (len(TEXTS), 5)
        assert models.get().encoder.runtime.backend == "static"


def test_a_config_for_encoders_does_not_touch_it(folder):
    runtime = {"backend": "openvino", "precision": "int8", "threads": 1}
    with served(folder, runtime=runtime) as models:
        encoder = models.get().encoder
        assert (encoder.runtime.backend, encoder.runtime.precision) == ("static", "fp32")
        assert "static model" in encoder.runtime_reason


def test_special_tokens_are_read_as_sentence_transformers_does_where_asked_for(folder):
    texts = ["A mill [SEP] by the pond.", "[CLS]mill", "[PAD] [UNK] wheel"]
    expected = reference(folder).encode(texts)
    with served(folder, parse_special_tokens=True) as models:
        assert close(embed(models, texts), expected)
    with served(folder) as models:
        assert not close(embed(models, texts), expected)


def test_unknown_tokens_count_as_in_sentence_transformers(folder):
    texts = ["日本 grain", "xq 日 mill", "日"]
    with served(folder) as models:
        assert close(embed(models, texts), reference(folder).encode(texts))


@pytest.mark.parametrize("many", [1, 60])
def test_any_number_of_texts_of_any_length(folder, many):
    """Small requests are computed where they come from, larger ones on a thread."""
    texts = [" ".join(TEXTS[place % 6] for place in range(size)) for size in range(1, 20)] * many
    with served(folder) as models:
        assert close(embed(models, texts), reference(folder).encode(texts))


# The pooling stage


@pytest.mark.parametrize("pooling", ["max", "cls", "last", "weighted_mean", "mean + max", "mean"])
def test_states_are_rows_of_the_table_and_pooled_like_any(folder, pooling):
    table = load_file(folder / WEIGHTS)["embedding.weight"]
    with served(folder, pooling=pooling) as models:
        model = models.get()
        rows = [table[text.ids] for text in model.encoder.tokenizer.encode(TEXTS)]
        for found, wanted in zip(token_states(model, TEXTS, max_total=1000), rows, strict=True):
            assert np.array_equal(found.states, wanted)
        expected = np.concatenate([_pooled(model, each) for each in rows])
        assert close(embed(models, TEXTS), expected)


def _pooled(model: Embedder, states: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(states)[None]
    pooled = model.recipe.pooler(rows, torch.ones(rows.shape[:2], dtype=torch.bool))
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


def test_spans_are_pooled_from_their_rows(folder):
    text = "A mill by the pond. the wheel turns"
    with served(folder) as models:
        spans = [[(0, 6), (20, 35)]]
        found = asyncio.run(models.get().embed_spans([text], spans, mode="late", most=10))[0]
        alone = embed(models, [text[start:end] for start, end in spans[0]])
    assert close(found.vectors, alone)  # nothing stands in its context


def test_a_fingerprint_is_of_table_and_tokenizer(folder, tmp_path):
    other = static(tmp_path / "other", Normalize())
    with served(folder) as models, served(other) as same:
        assert models.get().fingerprint == same.get().fingerprint
        before = models.get().fingerprint
    table = load_file(other / WEIGHTS)["embedding.weight"]
    table[7, 3] += 1
    change(other, **{"embedding.weight": table})
    with served(other) as models:
        assert models.get().fingerprint != before


def test_what_fails_in_the_head_names_the_text(folder, tmp_path):
    """Such requests go through the queue, which finds the row."""
    table = load_file(folder / WEIGHTS)["embedding.weight"].copy()
    dense = Dense(DIM, DIM, activation_function=torch.nn.Identity())
    dense.linear.weight.data.fill_(1e25)
    huge = static(tmp_path / "huge", dense)
    table[wordpiece().convert_tokens_to_ids("Grain")] = 1e15
    change(huge, **{"embedding.weight": table})
    with served(huge) as models, pytest.raises(BrokenModel, match=r"inputs\[1\]"):
        embed(models, ["the wheel turns", "Grain", "A mill"])


def test_a_closed_batcher_takes_nothing(folder):
    with served(folder) as models:
        model = models.get()
        batcher: Batcher = model.encoder.batcher
        assert isinstance(batcher.shapes, AnyShape)
    with pytest.raises(Unavailable, match="stopping"):
        embed(models, ["mill"])


# Lengths


def test_the_longest_text_is_that_of_the_tokenizer_else_8192(folder, tmp_path):
    with served(folder) as models:
        assert models.get().recipe.max_tokens == 8192
    limited = static(tmp_path / "limited")
    spec = json.loads((limited / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (limited / "tokenizer.json").write_text(json.dumps(spec | {"truncation": cut}))
    with served(limited) as models:
        assert models.get().recipe.max_tokens == 4
        assert close(embed(models, TEXTS, truncate="right"), reference(limited).encode(TEXTS))
        with pytest.raises(TooLong):
            embed(models, TEXTS)


# model2vec


def test_model2vec_leaves_unknown_tokens_out(tmp_path):
    folder = model2vec(tmp_path / "model")
    table = load_file(folder / WEIGHTS)["embeddings"]
    with served(folder) as models:
        assert close(embed(models, ["日本 grain", "mill 日 the"]), embed(models, ["grain", "mill the"]))
        ids = models.get().encoder.tokenizer.encode(["mill 日 the"])[0].ids
        mean = table[ids].mean(0, keepdims=True)
        assert close(embed(models, ["mill 日 the"]), mean / np.linalg.norm(mean))
        with pytest.raises(EmptyInput, match="no token that this model knows"):
            embed(models, ["mill", "日本"])
        (state,) = token_states(models.get(), ["日 mill"], max_total=9)
        assert (state.tokens, state.offsets) == (["mill"], ((2, 6),))


def test_model2vec_of_a_quantised_vocabulary(tmp_path):
    """A token's vector is the one that `mapping` gives it, times its weight."""
    random, rows = np.random.default_rng(1), wordpiece().vocab_size
    vectors = random.normal(size=(30, DIM)).astype(np.float32)
    mapping, weights = random.integers(0, 30, rows), random.random(rows).astype(np.float32)
    tensors = {"embeddings": vectors, "mapping": mapping, "weights": weights}
    folder = model2vec(tmp_path / "model", tensors, normalize=False)
    with served(folder) as models:
        ids = models.get().encoder.tokenizer.encode(TEXTS)
        expected = [(vectors[mapping[text.ids]] * weights[text.ids, None]).mean(0) for text in ids]
        assert close(embed(models, TEXTS), np.stack(expected))


@pytest.mark.parametrize(("kind", "tolerance"), [(np.float16, 1e-3), (np.int8, 1e-5), (np.float64, 1e-5)])
def test_model2vec_of_other_types(tmp_path, kind, tolerance):
    vectors = (np.random.default_rng(2).normal(size=(wordpiece().vocab_size, DIM)) * 30).astype(kind)
    with served(model2vec(tmp_path / "model", {"embeddings": vectors})) as models:
        ids = models.get().encoder.tokenizer.encode(TEXTS)
        means = np.stack([vectors[text.ids].astype(np.float32).mean(0) for text in ids])
        assert close(embed(models, TEXTS), means / np.linalg.norm(means, axis=1, keepdims=True), tolerance)


def test_model2vec_is_read_by_sentence_transformers_modules_too(tmp_path):
    """As model2vec saves it, with modules.json; both read texts without unknown tokens alike."""
    folder = model2vec(tmp_path / "model", model_type=None)
    at = "sentence_transformers.models."
    modules = [{"idx": 0, "name": "0", "path": ".", "type": at + "StaticEmbedding"}]
    with served(folder) as models:
        vectors = embed(models, TEXTS)
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, "config.json", "normalize is true", "no Normalize")
    modules.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": at + "Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with served(folder) as models:
        assert close(embed(models, TEXTS), vectors)
        assert close(vectors, reference(folder).encode(TEXTS))


@pytest.mark.parametrize(("declared", "limit"), [({"max_length": 9}, 9), ({"max_length": None}, 512)])
def test_model2vec_has_a_longest_text(tmp_path, declared, limit):
    with served(model2vec(tmp_path / "model", **declared)) as models:
        assert models.get().recipe.max_tokens == limit


# Bad folders


def test_a_damaged_table(tmp_path):
    path = static(tmp_path / "model") / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    refused(path.parent, str(path), "damaged, cut short")
    path.unlink()
    (path.parent / "pytorch_model.bin").write_bytes(whole)
    refused(path.parent, "has no model.safetensors (there is pytorch_model.bin)", "never read")


def test_a_table_that_is_none(tmp_path):
    folder = static(tmp_path / "model")
    change(folder, **{"embedding.weight": np.ones(9, np.float32)})
    refused(folder, WEIGHTS, "'embedding.weight' is 9 of F32", "2 dimensions")
    change(folder, **{"embedding.weight": np.ones((400, 3), np.int32)})
    refused(folder, WEIGHTS, "400 x 3 of I32")
    change(folder, **{"embedding.weight": None, "other": np.ones((400, 3), np.float32)})
    refused(folder, WEIGHTS, "holds no table of vectors", "other")


def test_a_table_of_another_tokenizer(tmp_path):
    folder = static(tmp_path / "model")
    change(folder, **{"embedding.weight": np.ones((9, DIM), np.float32)})
    refused(folder, "its embedding table has 9 rows", "another model")


def test_a_table_without_numbers(tmp_path):
    folder = static(tmp_path / "model")
    table = load_file(folder / WEIGHTS)["embedding.weight"].copy()
    table[[3, 8], 1] = np.nan, np.inf
    change(folder, **{"embedding.weight": table})
    refused(folder, str(folder / WEIGHTS), "NaN or infinity for 2 tokens, such as 3", "Get it anew")
    change(folder, **{"embedding.weight": np.zeros_like(table)})
    refused(folder, "nothing but zeros")


def test_a_mapping_that_leads_nowhere(tmp_path):
    rows = wordpiece().vocab_size
    vectors, mapping = np.ones((30, DIM), np.float32), np.zeros(rows, np.int64)
    folder = model2vec(tmp_path / "model", {"embeddings": vectors, "mapping": mapping})
    mapping[5] = 30
    change(folder, mapping=mapping)
    refused(folder, "'mapping' gives token 5 the vector 30, and there are 30")
    change(folder, mapping=mapping, weights=np.ones(7, np.float32))
    refused(folder, "'weights' are of 7 tokens", f"'mapping' is of {rows}")


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"model": 3}'])
def test_a_tokenizer_that_is_none(tmp_path, content):
    path = static(tmp_path / "model") / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)
    refused(path.parent, str(path), "cannot be read as a tokenizer")


@pytest.mark.parametrize(("key", "value"), [("normalize", "yes"), ("max_length", 0), ("max_length", "512")])
def test_a_config_of_model2vec_that_is_none(tmp_path, key, value):
    folder = model2vec(tmp_path / "model")
    edit(folder / "config.json", **{key: value})
    refused(folder, str(folder / "config.json"), key)


@pytest.mark.parametrize("kind", ["Pooling", "Transformer", "StaticEmbedding", "WordWeights"])
def test_modules_that_do_not_follow_a_table(tmp_path, kind):
    folder = static(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, kind, "StaticEmbedding alone")


def test_no_pooling_is_fitted_to_it(folder):
    from service.training import fitting

    with served(folder) as models, pytest.raises(ConfigError, match="static model"):
        fitting.build(["attention"], models.get().recipe)


# Words

_BACKEND = wordpiece()._tokenizer
_BACKEND.post_processor = None
_WORDS = Words(_BACKEND)
_PARTS = st.one_of(st.sampled_from([*TEXTS, " ", "  ", "\t", "\x1c", "\u0301", "\xa0", "x" * 120, "日本"]), st.text())


@given(st.lists(st.lists(_PARTS).map("".join), max_size=4))
def test_word_by_word_gives_the_same_ids(texts):
    assert Words.suits(_BACKEND.to_str())
    assert _WORDS.encode(texts) == [_BACKEND.encode(text).ids for text in texts]


def test_a_tokenizer_that_sees_beyond_spaces_is_not_asked_word_by_word():
    spec = json.loads(_BACKEND.to_str())
    added = {**spec["added_tokens"][0], "special": False}
    for other in (
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}},
        {"added_tokens": [added]},
        {"normalizer": {"type": "Replace", "pattern": {"String": "a b"}, "content": "c"}},
    ):
        assert not Words.suits(json.dumps(spec | other))
