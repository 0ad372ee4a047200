"""Special tokens that a text spells out, and those that two files of a checkpoint disagree on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from service.checkpoint import read_checkpoint
from service.encoder.tokenizer import Tokenizer, load_tokenizer
from service.errors import CheckpointError
from tests.support.checkpoints import (
    TEXTS,
    byte_pairs,
    edit,
    plain_bert,
    plain_llama,
    plain_roberta,
    plain_t5,
    sentence_transformer,
    served,
)


def pieces() -> PreTrainedTokenizerFast:
    """SentencePiece's unigrams as XLM-R has them: special tokens are pieces like others."""
    tokenizer = Reference(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **{f"{name}_token": token for name, token in names.items()}
    )


def xlm_roberta(folder: Path) -> Path:
    plain_roberta(folder)
    pieces().save_pretrained(folder)
    return folder


KINDS = {"wordpiece": plain_bert, "byte pairs": plain_roberta, "t5": plain_t5, "unigrams": xlm_roberta}


def tokenizer_of(folder: Path, **options: bool) -> Tokenizer:
    return Tokenizer(load_tokenizer(read_checkpoint(str(folder))), **options)


def content(tokenizer: Tokenizer, text: str, **options: str) -> list[int]:
    """The ids of a text without its frame."""
    ids = tokenizer.encode([text], **options)[0].ids.tolist()
    return ids[len(tokenizer.spec.prefix) : len(ids) - len(tokenizer.spec.suffix)]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return KINDS[request.param](tmp_path_factory.mktemp("model"))


def test_a_text_cannot_spell_a_special_token(folder: Path) -> None:
    tokenizer = tokenizer_of(folder)
    unknown = AutoTokenizer.from_pretrained(folder).unk_token_id
    assert tokenizer.special_tokens
    for token in tokenizer.special_tokens:
        for text in (token, f"the mill {token} the pond", f"mill{token}pond{token}", f" {token} "):
            assert not set(content(tokenizer, text)) & set(tokenizer.spec.special_ids) - {unknown}, text


def test_unless_asked_to_as_sentence_transformers_does(folder: Path) -> None:
    tokenizer, reference = tokenizer_of(folder, parse_special_tokens=True), AutoTokenizer.from_pretrained(folder)
    for token in tokenizer.special_tokens:
        text = f"the mill {token} the pond"
        assert tokenizer.encode([text])[0].ids.tolist() == reference(text)["input_ids"]
    assert tokenizer.fingerprint() != tokenizer_of(folder).fingerprint()


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(TEXTS))
def test_other_texts_are_read_as_ever(folder: Path, text: str) -> None:
    plain, parsing = tokenizer_of(folder), tokenizer_of(folder, parse_special_tokens=True)
    if not any(token in text for token in plain.special_tokens):
        assert plain.encode([text])[0].ids.tolist() == parsing.encode([text])[0].ids.tolist()


def test_a_prompt_that_spells_one_means_it(folder: Path) -> None:
    tokenizer, reference = tokenizer_of(folder), AutoTokenizer.from_pretrained(folder)
    token = tokenizer.special_tokens[-1]
    prompt = f"{token}query{token} "
    assert (
        tokenizer.encode(["the wheel"], prompt=prompt)[0].ids.tolist() == reference(prompt + "the wheel")["input_ids"]
    )
    assert tokenizer.framed_length(prompt) == len(reference(prompt)["input_ids"])


def test_the_key_of_a_config(tmp_path: Path) -> None:
    folder = sentence_transformer(plain_bert(tmp_path / "bert"), tmp_path / "model")
    lengths = []
    for parse in (False, True):
        with served(folder, parse_special_tokens=parse) as models:
            lengths.append(len(content(models.get().encoder.tokenizer, "the [SEP]")))
            fingerprint = models.get().fingerprint
    assert lengths[0] > lengths[1] == 2
    with served(folder) as models:
        assert models.get().fingerprint != fingerprint


# Two files that disagree on the frame


@pytest.mark.parametrize(
    ("template", "flags"),
    [
        ("<s> $A", {"add_bos_token": True, "add_eos_token": True}),
        ("$A", {"add_eos_token": True}),
        ("$A </s>", {"add_bos_token": True}),
        ("<s> $A </s>", {"add_eos_token": False}),
        ("<s> $A </s>", {"add_bos_token": False, "add_eos_token": True}),
    ],
)
def test_a_template_that_contradicts_the_flags(tmp_path: Path, template: str, flags: dict[str, bool]) -> None:
    folder = plain_llama(tmp_path / "model", byte_pairs(template))
    edit(folder / "tokenizer_config.json", **flags)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json has add_.*tokenizer\.json") as caught:
        load_tokenizer(read_checkpoint(str(folder)))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("template", "flags", "frame"),
    [
        ("<s> $A </s>", {"add_bos_token": True, "add_eos_token": True}, ((0,), (2,))),
        ("$A </s>", {"add_bos_token": False, "add_eos_token": True}, ((), (2,))),
        ("<s> $A", {"add_bos_token": True, "add_eos_token": False}, ((0,), ())),
        ("<s> $A </s>", {}, ((0,), (2,))),
    ],
)
def test_a_template_that_agrees(tmp_path, template, flags, frame) -> None:  # type: ignore[no-untyped-def]
    folder = plain_llama(tmp_path / "model", byte_pairs(template))
    edit(folder / "tokenizer_config.json", **flags)
    spec = load_tokenizer(read_checkpoint(str(folder)))
    assert (spec.prefix, spec.suffix) == frame
    assert json.loads(spec.to_json())["suffix"] == list(frame[1])
