"""`token("[MASK]")`: the state of one special token, which a prompt or a text writes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from service.embedding.explain import explain
from service.embedding.viewing import Viewing
from service.errors import ConfigError, InvalidInput
from tests.support.checkpoints import (
    TEXTS,
    close,
    embed,
    plain_bert,
    plain_llama,
    sentence_transformer,
    served,
    static,
    token_states,
)

MASK = "token('[MASK]')"
PROMPT = "the wheel means [MASK]: "


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("bert") / "plain")


def states_of(folder, texts: list[str], token: str) -> np.ndarray:
    """The state of the token in each text, by transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            (place,) = (ids[0] == tokenizer.convert_tokens_to_ids(token)).nonzero()[0]
            found.append(model(input_ids=ids).last_hidden_state[0, place].numpy())
    return np.stack(found)


def test_a_prompt_writes_the_token(bert):
    with served(bert, pooling=MASK, prompts={"query": PROMPT}) as models:
        found = embed(models, TEXTS, role="query")
    assert close(found, states_of(bert, [PROMPT + text for text in TEXTS], "[MASK]"))


def test_a_text_writes_the_token(bert):
    texts = [f"{text} means [MASK]" for text in TEXTS]
    with served(bert, pooling=MASK, parse_special_tokens=True) as models:
        assert close(embed(models, texts), states_of(bert, texts, "[MASK]"))


def test_requests_with_and_without_it_share_a_pass(bert):
    with served(bert, pooling="mean", parse_special_tokens=True) as models:
        texts = [f"{text} means [MASK]" for text in TEXTS]

        async def both():
            return await asyncio.gather(models.get().embed(texts), models.get(None, MASK).embed(texts))

        mean, masked = asyncio.run(both())
        assert close(masked.vectors, states_of(bert, texts, "[MASK]"))
        assert close(mean.vectors, embed(models, texts))


def test_tokens_that_frame_a_text(bert, tmp_path):
    with served(bert, pooling="cls") as models:
        assert close(embed(models, TEXTS, "token('[CLS]')"), embed(models, TEXTS))
        assert close(embed(models, TEXTS, "token('[SEP]')"), embed(models, TEXTS, "last"))
    with served(plain_llama(tmp_path / "llama"), pooling="last") as models:
        assert close(embed(models, TEXTS, {"strategy": "token", "token": "</s>"}), embed(models, TEXTS))


def test_what_is_not_pooled_need_not_have_it(bert):
    with served(bert, pooling=MASK, parse_special_tokens=True) as models:
        model = models.get()
        assert len(asyncio.run(model.tokenize(["the wheel"]))[0].ids) == 4
        assert len(token_states(model, ["a [MASK] and a [MASK]"], max_total=99)[0].tokens) == 7
        text = "the [MASK] wheel. Grain [MASK] turns."
        (found,) = asyncio.run(model.embed_spans([text], [[(0, 17), (18, 37)]], mode="early", most=9))
        assert close(found.vectors, states_of(bert, [text[:17], text[18:]], "[MASK]"))
        with pytest.raises(InvalidInput, match=r"no token \[MASK\]"):
            asyncio.run(model.embed_spans([text], [[(0, 3)]], mode="early", most=9))


@pytest.mark.parametrize("poolings", [["mean", MASK], [MASK, "mean"]])
@pytest.mark.parametrize(("text", "says"), [("a wheel", "text has no token"), ("[MASK] [MASK]", "text has 2 tokens")])
def test_every_pooling_of_an_explanation_is_checked(bert, poolings, text, says):
    with (
        served(bert, pooling="mean", parse_special_tokens=True) as models,
        pytest.raises(InvalidInput, match=says),
    ):
        asyncio.run(explain(models, Viewing(poolings), text))


def test_an_explanation_gives_it_all(bert):
    with served(bert, pooling="mean", prompts={"query": PROMPT}) as models:
        found = asyncio.run(explain(models, Viewing([MASK, "mean"], asked=("query", None)), TEXTS[0]))
    shares = dict(zip(found.text.tokens, found.explanations[0].shares, strict=True))
    assert shares["[MASK]"] == 1 and sum(shares.values()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a mill", r"inputs\[1\] has no token \[MASK\].*Write it once.*parse_special_tokens"),
        ("a [MASK] and a [MASK]", r"inputs\[1\] has 2 tokens \[MASK\].*Write it once"),
        ("the wheel turns " * 30 + "[MASK]", r"inputs\[1\] has no token \[MASK\]"),  # once it is cut
    ],
)
def test_a_text_that_lacks_it_or_has_it_twice(bert, text, says):
    with served(bert, pooling=MASK, parse_special_tokens=True) as models, pytest.raises(InvalidInput, match=says):
        embed(models, ["a [MASK]", text], truncate="right")


def test_a_text_that_spells_it_as_plain_characters(bert):
    with served(bert, pooling=MASK) as models, pytest.raises(InvalidInput, match="only if the model has parse_spec"):
        embed(models, ["a [MASK]"])


def test_a_prompt_that_is_not_pooled_does_not_count(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", prompts={"query": PROMPT}, include_prompt=False)
    with served(folder, pooling=MASK) as models, pytest.raises(InvalidInput, match=r"has no token \[MASK\]"):
        embed(models, TEXTS, role="query")


def test_a_token_that_the_tokenizer_does_not_have(bert):
    with (
        pytest.raises(ConfigError, match=r"'\[MASC\]' is no special token .* '\[MASK\]'.* Did you mean '\[MASK\]'"),
        served(bert, pooling="token('[MASC]')"),
    ):
        pass
    with served(bert, pooling="mean") as models, pytest.raises(InvalidInput, match="'wheel' is no special token"):
        embed(models, TEXTS, "token('wheel')")


def test_a_static_model_has_none_around_a_text(tmp_path):
    folder, says = static(tmp_path / "static"), r"is a static model, whose tokenizer puts no \[CLS\] around a text"
    with (
        pytest.raises(ConfigError, match=rf"models.default.pooling: .*{says}"),
        served(folder, pooling="token('[CLS]')"),
    ):
        pass
    with served(folder) as models, pytest.raises(InvalidInput, match=says):
        embed(models, TEXTS, "token('[CLS]')")


def test_spans_of_a_whole_text_hold_no_special_token(bert):
    with served(bert, pooling=MASK, prompts={"document": PROMPT}) as models:
        spans = models.get().embed_spans(["A mill by the pond."], [[(0, 6)]], most=9)
        with pytest.raises(InvalidInput, match=r"special tokens are in no span.*mode 'early'"):
            asyncio.run(spans)
        early = models.get().embed_spans(["A mill by the pond."], [[(0, 6)]], mode="early", role="document", most=9)
        (found,) = asyncio.run(early)
        assert close(found.vectors, states_of(bert, [PROMPT + "A mill"], "[MASK]"))
