"""`pooling: declared` gives the vectors of sentence-transformers, whatever a checkpoint declares."""

from __future__ import annotations

import asyncio
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize
from torch import nn

from service.errors import CheckpointError, InvalidInput, TooLong
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    byte_pairs,
    close,
    edit,
    embed,
    plain_bert,
    plain_gpt2,
    plain_llama,
    plain_roberta,
    plain_t5,
    reference,
    sentence_transformer,
    served,
    token_states,
)

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LEGACY = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
PROMPTS = {"query": "query: ", "document": "passage: the ", "classify": "represent "}
LONG = "The wheel turns when water flows over it, slowly at first. " * 12


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("bert"))


def assert_equal_to_reference(folder: Path, texts=TEXTS, **arguments):
    """Encode, encode_query and encode_document, and every prompt by name."""
    theirs = reference(folder)
    ours_arguments = {"truncate": "right"} | arguments
    with served(folder) as models:
        assert models.get().encoder.checkpoint.pooling is not None
        assert close(embed(models, texts, **ours_arguments), theirs.encode(texts))
        assert close(embed(models, texts, role="query", **ours_arguments), theirs.encode_query(texts))
        assert close(embed(models, texts, role="document", **ours_arguments), theirs.encode_document(texts))
        for name in models.get().recipe.prompts:
            ours = embed(models, texts, prompt_name=name, **ours_arguments)
            assert close(ours, theirs.encode(texts, prompt_name=name)), name


# What follows the encoder


@pytest.mark.parametrize("mode", MODES)
def test_each_pooling(bert, tmp_path, mode):
    assert_equal_to_reference(sentence_transformer(bert, tmp_path / "model", mode))


@pytest.mark.slow
def test_poolings_differ_from_each_other(bert, tmp_path):
    """Otherwise the tests above could not fail."""
    vectors = []
    for mode in MODES:
        with served(sentence_transformer(bert, tmp_path / mode, mode)) as models:
            vectors.append(embed(models, TEXTS, normalize=True))
    for left, right in combinations(vectors, 2):
        same_direction = np.abs((left * right).sum(1) - 1).max() < 1e-5
        assert same_direction == (left is vectors[2] and right is vectors[3])  # mean and mean_sqrt_len


@pytest.mark.parametrize("modes", [("max", "mean"), ("lasttoken", "cls"), ("weightedmean", "mean_sqrt_len_tokens")])
def test_pairs_in_the_declared_order(bert, tmp_path, modes):
    assert_equal_to_reference(sentence_transformer(bert, tmp_path / "model", modes, Normalize()))


@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), *zip(MODES[1:], MODES, strict=False), (), MODES])
def test_legacy_booleans(bert, tmp_path, modes):
    folder = sentence_transformer(bert, tmp_path / "model")
    flags = {key: mode in modes for mode, key in LEGACY.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": DIM, **flags}))
    theirs = reference(folder)
    with served(folder) as models:
        assert close(embed(models, TEXTS), theirs.encode(TEXTS))


@pytest.mark.parametrize(
    "head",
    [
        [Dense(DIM, 10)],
        [Dense(DIM, 10, bias=False, activation_function=nn.Identity()), Normalize()],
        [Dense(DIM, 30, activation_function=nn.GELU()), Dense(30, 8, activation_function=nn.ReLU())],
        [Dense(DIM, DIM, use_residual=True), Normalize()],
        [Dense(DIM, 10, use_residual=True, activation_function=nn.SiLU())],
        [LayerNorm(DIM), Normalize()],
        [Normalize(), Dense(DIM, 6), LayerNorm(6)],
        [Dropout(0.5), Dense(DIM, 6), Dropout(0.5), Normalize(), Dropout(0.5)],
        [Normalize(), Normalize()],
    ],
    ids=lambda head: "-".join(type(module).__name__ for module in head),
)
def test_heads(bert, tmp_path, head):
    torch.manual_seed(7)
    for module in head:
        for weight in module.parameters():
            nn.init.normal_(weight, std=0.3)
    assert_equal_to_reference(sentence_transformer(bert, tmp_path / "model", "mean", *head))


def test_dense_after_two_poolings(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", ("cls", "mean"), Dense(2 * DIM, 12), Normalize())
    assert_equal_to_reference(folder)


def test_normalize_can_be_switched(bert, tmp_path):
    with_it = sentence_transformer(bert, tmp_path / "with", "mean", Normalize())
    without = sentence_transformer(bert, tmp_path / "without", "mean")
    raw, unit = reference(without).encode(TEXTS), reference(with_it).encode(TEXTS)
    for folder in (with_it, without):
        with served(folder) as models:
            assert close(embed(models, TEXTS, normalize=False), raw)
            assert close(embed(models, TEXTS, normalize=True), unit)
    with served(with_it, normalize=False) as models:
        assert close(embed(models, TEXTS), raw)
        assert list(models.get("default").recipe.warnings) == ["normalize False overrides the declared True"]


@pytest.mark.parametrize("head", [[], [Normalize()]])
def test_truncate_dim(bert, tmp_path, head):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", *head, truncate_dim=7)
    assert_equal_to_reference(folder)
    with served(folder) as models:
        assert models.get().dim == 7


def test_dimensions_are_normalised_anew(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", Normalize())
    expected = reference(folder).encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    with served(folder) as models:
        assert close(embed(models, TEXTS, dimensions=5), expected)
        for wrong in (0, -1, DIM + 1):
            with pytest.raises(InvalidInput, match=f"from 1 to {DIM}"):
                embed(models, TEXTS, dimensions=wrong)


# Other encoders


@pytest.mark.parametrize("mode", ["mean", "lasttoken"])
@pytest.mark.parametrize("plain", [plain_roberta, plain_llama, plain_t5], ids=["roberta", "llama", "t5"])
def test_other_encoders(tmp_path, plain, mode):
    folder = sentence_transformer(plain(tmp_path / "plain"), tmp_path / "model", mode, prompts=PROMPTS)
    assert_equal_to_reference(folder, [*TEXTS, LONG])


def test_roberta_takes_no_more_than_its_positions(tmp_path):
    """Two of its 34 positions stand for padding; a longer text would index behind the table."""
    folder = plain_roberta(tmp_path / "model")
    edit(folder / "tokenizer_config.json", model_max_length=512)
    with served(folder, pooling="mean") as models:
        assert models.get().recipe.max_tokens == 32
        assert np.isfinite(embed(models, [LONG], truncate="right")).all()


def test_gpt2_names_its_positions_otherwise(tmp_path):
    """And its tokenizer has no padding token, nor any special ones around a text."""
    folder = plain_gpt2(tmp_path / "model")
    with served(folder, pooling="last") as models:
        assert models.get().recipe.max_tokens == 40
        together = embed(models, [*TEXTS, LONG], truncate="right")
        alone = [embed(models, [text], truncate="right")[0] for text in [*TEXTS, LONG]]
        assert close(together, np.stack(alone))


# Prompts


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts(bert, tmp_path, mode, include_prompt):
    folder = sentence_transformer(
        bert,
        tmp_path / "model",
        mode,
        include_prompt=include_prompt,
        prompts=PROMPTS,
        default_prompt_name="classify",
    )
    assert_equal_to_reference(folder, [*TEXTS, LONG])


@pytest.mark.parametrize("plain", [plain_roberta, plain_llama], ids=["roberta", "llama"])
def test_prompts_left_out_of_byte_pairs(tmp_path, plain):
    model = plain(tmp_path / "plain")
    folder = sentence_transformer(model, tmp_path / "model", "mean", include_prompt=False, prompts=PROMPTS)
    assert_equal_to_reference(folder)


def test_prompts_change_vectors(bert, tmp_path):
    """Otherwise the tests above could not fail."""
    for include in (True, False):
        folder = sentence_transformer(bert, tmp_path / str(include), include_prompt=include, prompts=PROMPTS)
        with served(folder) as models:
            assert not close(embed(models, TEXTS), embed(models, TEXTS, role="query"), 1e-2)


@pytest.mark.parametrize("default", [None, "classify"])
def test_a_role_without_a_prompt_has_none(bert, tmp_path, default):
    """Rather than the default one, which may be that of the other role."""
    prompts = {"classify": "represent "}
    folder = sentence_transformer(bert, tmp_path / "model", prompts=prompts, default_prompt_name=default)
    assert_equal_to_reference(folder)
    # Files from before release 5 have no empty prompts for the roles.
    edit(folder / "config_sentence_transformers.json", prompts=prompts)
    assert_equal_to_reference(folder)


def test_a_document_has_the_prompt_for_passages(bert, tmp_path):
    """As sentence-transformers documents it; its release 6.2 never reaches that name, see `encode_document`."""
    folder = sentence_transformer(bert, tmp_path / "model")
    prompts = {"query": "query: ", "passage": "passage: the "}
    edit(folder / "config_sentence_transformers.json", prompts=prompts)
    theirs = reference(folder)
    with served(folder) as models:
        assert close(embed(models, TEXTS, role="query"), theirs.encode_query(TEXTS))
        assert close(embed(models, TEXTS, role="document"), theirs.encode(TEXTS, prompt_name="passage"))


def test_weighted_mean_without_prompts_needs_none(bert, tmp_path):
    """The prompts that sentence-transformers saves by default are empty, so nothing is ambiguous."""
    folder = sentence_transformer(bert, tmp_path / "model", "weightedmean", include_prompt=False)
    assert_equal_to_reference(folder)


def test_config_can_replace_prompts(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", prompts=PROMPTS, default_prompt_name="query")
    with served(folder, prompts={"ask": "query: "}) as models:
        plain = reference(folder).encode(TEXTS, prompt="")
        assert close(embed(models, TEXTS), plain)
        assert close(embed(models, TEXTS, prompt_name="ask"), reference(folder).encode(TEXTS, prompt="query: "))
        with pytest.raises(InvalidInput, match=r"no prompt 'aks'; it has 'ask'. Did you mean 'ask'"):
            embed(models, TEXTS, prompt_name="aks")


def test_a_text_may_merge_into_its_prompt(tmp_path):
    """Byte pairs: 'query: ' and 'query: x' have equally many tokens, and only one of them has no text."""
    folder = tmp_path / "model"
    plain = plain_llama(tmp_path / "plain", byte_pairs("$A", padding_side="left"))
    sentence_transformer(plain, folder, "lasttoken", prompts={"query": "query: "})
    tokenizer = reference(folder).tokenizer
    text = next(
        text
        for text in ("the", "water", "w", "turns")
        if len(tokenizer("query: " + text).input_ids) == len(tokenizer("query: ").input_ids)
    )
    with served(folder) as models:
        assert close(embed(models, [text], role="query"), reference(folder).encode_query([text]))


def test_a_text_that_its_left_out_prompt_swallows_is_refused(tmp_path):
    plain = plain_llama(tmp_path / "plain", byte_pairs("$A", padding_side="left"))
    folder = sentence_transformer(
        plain, tmp_path / "model", "mean", include_prompt=False, prompts={"query": "query: "}
    )
    with served(folder) as models, pytest.raises(InvalidInput, match=r"inputs\[0\] has no token"):
        embed(models, ["the"], role="query")


def test_a_text_without_a_token_is_refused(bert, tmp_path):
    """Control characters are dropped by the pre-tokenizer; with a prompt the prompt alone would be embedded."""
    folder = sentence_transformer(bert, tmp_path / "model", prompts=PROMPTS)
    edit_tokenizer = json.loads((folder / "tokenizer.json").read_text())
    edit_tokenizer["normalizer"] = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(edit_tokenizer))
    with served(folder) as models:
        for arguments in ({}, {"role": "query"}):
            with pytest.raises(InvalidInput, match=r"inputs\[1\] has no token"):
                embed(models, ["fine", "\x01\x02"], **arguments)
            for blank in ("", "  \n"):
                with pytest.raises(InvalidInput, match=r"inputs\[1\]"):
                    embed(models, ["fine", blank], **arguments)
        with pytest.raises(InvalidInput, match="not valid Unicode"):
            embed(models, ["\ud800"])


def test_a_prompt_that_leaves_no_room_is_refused(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", prompts={"long": "represent the sentence "})
    length = len(reference(folder).tokenizer("represent the sentence ").input_ids)
    for limit, fits in ((length, False), (length + 1, True)):
        with served(folder, max_tokens=limit) as models:
            if fits:
                assert embed(models, ["water"], prompt_name="long", truncate="right").shape == (1, DIM)
            else:
                with pytest.raises(InvalidInput, match="leaves none for the text"):
                    embed(models, ["water"], prompt_name="long", truncate="right")


def test_cutting_at_the_left_keeps_the_prompt(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", include_prompt=False, prompts=PROMPTS)
    tokenizer = reference(folder).tokenizer
    end = tokenizer(LONG, add_special_tokens=False).input_ids[-40:]
    with served(folder, max_tokens=40 + len(tokenizer(PROMPTS["query"]).input_ids)) as models:
        cut = embed(models, [LONG], role="query", truncate="left")
        assert close(cut, embed(models, [tokenizer.decode(end)], role="query"))


# Lengths and spelling


def test_max_seq_length(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model")
    edit(folder / "sentence_bert_config.json", max_seq_length=9)
    assert_equal_to_reference(folder, [*TEXTS, LONG])
    with served(folder) as models:
        assert models.get().recipe.max_tokens == 9
        with pytest.raises(TooLong, match=r"inputs\[0\] has \d+ tokens and model 'default' takes 9"):
            embed(models, [LONG])


def test_do_lower_case(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model")
    with served(folder) as models:
        cased = embed(models, TEXTS)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    assert_equal_to_reference(folder)
    with served(folder) as models:
        assert not close(embed(models, TEXTS), cased, 1e-2)


def test_split_special_tokens(bert, tmp_path):
    """'[SEP]' in a text is plain characters, as sentence-transformers has it only where a tokenizer says so."""
    folder = sentence_transformer(bert, tmp_path / "model")
    texts = ["The wheel [SEP] turns", "a [CLS]"]
    with served(folder, parse_special_tokens=True) as models:
        parsed = embed(models, texts)
        assert close(parsed, reference(folder).encode(texts))
    with served(folder) as models:
        assert not close(embed(models, texts), parsed, 1e-2)
    edit(folder / "tokenizer_config.json", split_special_tokens=True)
    assert_equal_to_reference(folder, texts)


def test_the_order_of_modules_json_counts_not_idx(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", Dense(DIM, DIM), Normalize())
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["idx"], modules[3]["idx"] = 3, 2
    (folder / "modules.json").write_text(json.dumps(modules))
    assert_equal_to_reference(folder)


def test_files_of_sentence_transformers_2(bert, tmp_path):
    """The transformer in a folder of its own, old module names, old pooling keys, a length, no prompts."""
    folder = tmp_path / "model"
    sentence_transformer(bert, folder, "mean", Dense(DIM, 10), Normalize())
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(inner / name)
    (folder / "sentence_bert_config.json").unlink()
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
                for i, kind in enumerate(kinds)
            ]
        )
    )
    flags = {key: mode == "cls" for mode, key in LEGACY.items() if mode in ("cls", "max", "mean")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": DIM, **flags}))
    (folder / "config_sentence_transformers.json").write_text(
        '{"__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}}'
    )
    assert_equal_to_reference(folder, [*TEXTS, LONG])


def test_the_bundled_model(minilm):
    with served("bundled/all-MiniLM-L6-v2") as models:
        assert models.get().recipe.max_tokens == 256
        texts = [*TEXTS, LONG * 10]
        assert close(embed(models, texts, truncate="right"), reference(minilm).encode(texts))


# Large requests, which are tokenized in parts


@pytest.mark.slow
def test_a_large_request_gives_what_small_ones_do(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", prompts=PROMPTS)
    many = [f"{text} {number}" for number in range(250) for text in TEXTS]
    assert sum(map(len, many)) > 50_000
    with served(folder) as models:
        for role in (None, "query"):
            few = [embed(models, many[start : start + 5], role=role) for start in range(0, len(many), 5)]
            assert close(embed(models, many, role=role), np.concatenate(few))


def test_places_in_a_large_request(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model")
    many = TEXTS * 300
    with served(folder, max_tokens=40) as models:
        for place in (0, 700, 1799):
            bad = list(many)
            bad[place] = LONG
            with pytest.raises(TooLong, match=rf"inputs\[{place}\] has \d+ tokens") as caught:
                embed(models, bad)
            assert str(caught.value.where) == f"inputs[{place}]"
            bad[place] = " "
            with pytest.raises(InvalidInput, match=rf"inputs\[{place}\] has nothing but white space"):
                embed(models, bad)
            ids = [[5, 6, 7]] * 9000
            ids[place * 5] = [5, 400]
            with pytest.raises(InvalidInput, match="token id 400") as caught:
                embed(models, ids)
            assert str(caught.value.where) == f"inputs[{place * 5}]"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 30])
def test_a_small_request_passes_a_large_one_that_is_being_tokenized(bert, tmp_path, count):
    """The large one is refused for its last text, so that it ends with its tokenizing."""
    folder = sentence_transformer(bert, tmp_path / "model")
    small = (TEXTS * 5)[:count]

    async def ask(embedder):
        large = asyncio.create_task(embedder.embed([*TEXTS * 10_000, LONG * 5]))
        await asyncio.sleep(0)  # it is the first to be tokenized
        found = await embedder.embed(small)
        overtaken = not large.done()
        with pytest.raises(TooLong, match=r"inputs\[60000\]"):
            await large
        return found.vectors, overtaken

    with served(folder) as models:
        vectors, overtaken = asyncio.run(ask(models.get()))
        assert overtaken
        assert close(vectors, embed(models, small))


# Token ids


def test_token_ids_give_the_vectors_of_their_text(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", prompts=PROMPTS, default_prompt_name=None)
    tokenizer = reference(folder).tokenizer
    with served(folder) as models:
        expected = embed(models, TEXTS)
        for special in (True, False):
            ids = [tokenizer(text, add_special_tokens=special).input_ids for text in TEXTS]
            assert close(embed(models, ids), expected)
        for bad in ([400], [-1], [10**12]):
            with pytest.raises(InvalidInput, match=r"inputs\[1\]|token id"):
                embed(models, [[7], bad])
        for nothing in ([], [2, 3]):
            with pytest.raises(InvalidInput, match=r"inputs\[0\] has no token"):
                embed(models, [nothing])


# One vector a text, whatever is beside it


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    with served(sentence_transformer(plain_bert(folder / "plain"), folder / "model", ("max", "mean"))) as models:
        pool = [*TEXTS, LONG[:150], *(f"{text} {TEXTS[0]}" for text in TEXTS)]
        yield models, pool, {text: embed(models, [text])[0] for text in pool}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_vector_does_not_depend_on_its_company(mixed, requests):
    models, pool, alone = mixed

    async def all_at_once():
        return await asyncio.gather(*(models.get().embed([pool[i] for i in request]) for request in requests))

    for request, found in zip(requests, asyncio.run(all_at_once()), strict=True):
        assert close(found.vectors, np.stack([alone[pool[i]] for i in request]))


def test_no_texts_give_no_vectors(mixed):
    models, _, _ = mixed
    found = asyncio.run(models.get().embed([]))
    assert found.vectors.shape == (0, 2 * DIM)
    assert found.tokens == 0


def test_token_states_pool_to_the_vector(mixed):
    models, pool, alone = mixed
    states = token_states(models.get(), pool, max_total=10_000)
    for text, state in zip(pool, states, strict=True):
        assert len(state.tokens) == len(state.offsets) == len(state.states)
        pooled = np.concatenate([state.states.max(0), state.states.mean(0)])
        assert close(pooled, alone[text])
        assert next(text[slice(*pair)] for pair in state.offsets if pair)[0] == text[0]
    total = sum(len(state.tokens) for state in states)
    with pytest.raises(TooLong, match=f"{total} tokens together"):
        token_states(models.get(), pool, max_total=total - 1)


def test_bf16_is_near_and_has_the_same_fingerprint(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", Dense(DIM, 12), Normalize())
    with served(folder) as full, served(folder, runtime={"precision": "bf16"}) as half:
        assert half.get().encoder.runtime.precision == "bf16"
        exact, rough = embed(full, TEXTS), embed(half, TEXTS)
        assert rough.dtype == np.float32
        assert (exact * rough).sum(1).min() > 0.99
        assert not close(exact, rough)
        assert full.get().fingerprint == half.get().fingerprint


def test_a_vector_that_is_not_finite_is_an_error(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not finite: model\.safetensors holds NaN.*LayerNorm"), served(folder):
        pass


# The fingerprint


def fingerprint(folder: Path, **settings) -> str:
    with served(folder, **settings) as models:
        return models.get().fingerprint


def saved_gem(folder: Path, p: float) -> dict[str, str]:
    import pooling

    pooler = pooling.build(f"gem(p={p})", DIM)
    pooler.mark_trained()
    pooler.save(folder)
    return {"strategy": "gem", "weights": str(folder)}


@pytest.mark.slow
def test_the_fingerprint_changes_with_what_changes_a_vector(bert, tmp_path):
    head = [Dense(DIM, DIM), Normalize()]
    base = sentence_transformer(bert, tmp_path / "base", "mean", *head, prompts=PROMPTS)

    def copy(name: str) -> Path:
        return sentence_transformer(bert, tmp_path / name, "mean", *head, prompts=PROMPTS)

    weights, tokenizer, dense, length, lower, config = map(
        copy, ("weights", "tokenizer", "dense", "length", "lower", "config")
    )
    for path, key in (
        (weights / "model.safetensors", None),
        (dense / "2_Dense" / "model.safetensors", "linear.bias"),
    ):
        tensors = load_file(path)
        tensors[key or "embeddings.LayerNorm.bias"][0] += 1e-3
        save_file(tensors, path, metadata={"format": "pt"})
    text = (tokenizer / "tokenizer.json").read_text()
    (tokenizer / "tokenizer.json").write_text(text.replace('"NFC"', '"NFKC"'))
    edit(length / "sentence_bert_config.json", max_seq_length=32)
    edit(lower / "sentence_bert_config.json", do_lower_case=True)
    edit(config / "config.json", layer_norm_eps=1e-5)
    found = {
        "base": fingerprint(base),
        "weights": fingerprint(weights),
        "tokenizer": fingerprint(tokenizer),
        "dense": fingerprint(dense),
        "length": fingerprint(length),
        "lower": fingerprint(lower),
        "config": fingerprint(config),
        "max_tokens": fingerprint(base, max_tokens=33),
        "cls": fingerprint(base, pooling="cls"),
        "gem 3": fingerprint(base, pooling="gem(p=3)"),
        "gem 4": fingerprint(base, pooling="gem(p=4)"),
        "saved": fingerprint(base, pooling=saved_gem(tmp_path / "gem", 5)),
        "no norm": fingerprint(base, normalize=False),
        "prompts": fingerprint(base, prompts={"query": "query; "}),
        "identity": fingerprint(sentence_transformer(bert, tmp_path / "other", "mean", Normalize())),
    }
    assert len(set(found.values())) == len(found), found


def test_pooler_weights_are_part_of_the_fingerprint(bert, tmp_path):
    import pooling

    specs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        pooler = pooling.build("attention", DIM)
        for weight in pooler.parameters():
            nn.init.normal_(weight)
        pooler.mark_trained()
        pooler.save(tmp_path / str(seed))
        specs.append({"strategy": "attention", "weights": str(tmp_path / str(seed))})
    assert fingerprint(bert, pooling=specs[0]) != fingerprint(bert, pooling=specs[1])


def test_the_fingerprint_ignores_what_changes_no_vector(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "a", "mean", Normalize(), prompts=PROMPTS)
    before = fingerprint(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    config = json.loads((moved / "config.json").read_text())
    config = dict(reversed(config.items())) | {
        "dtype": "bfloat16",
        "transformers_version": "4.0.0",
        "use_cache": False,
    }
    (moved / "config.json").write_text(json.dumps(config, indent=7))
    assert fingerprint(moved) == before
    assert fingerprint(moved, pooling="mean") == before
    assert fingerprint(moved, normalize=True) == before


def test_a_head_that_does_not_fit_an_overridden_pooling(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", Dense(DIM, 10))
    with pytest.raises(
        CheckpointError, match=f"Dense takes vectors of {DIM} dimensions and would be given {2 * DIM}"
    ):
        served(folder, pooling="mean+max").__enter__()
    with served(folder) as models, pytest.raises(InvalidInput, match="Dense takes vectors"):
        embed(models, TEXTS, "mean+max")
