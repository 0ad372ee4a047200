"""Token ids, offsets and cuts, against what `tokenizers` and transformers say themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from transformers import AutoTokenizer

from service.checkpoint import read_checkpoint
from service.encoder.tokenizer import FEW, Tokenizer, TokenizerSpec, load_tokenizer
from service.errors import CheckpointError, InvalidInput
from tests.support.checkpoints import TEXTS, edit, plain_bert, plain_gpt2, plain_llama, plain_roberta
from tests.support.servers import ROOT

KINDS = {"bert": plain_bert, "roberta": plain_roberta, "llama": plain_llama, "gpt2": plain_gpt2}
SPECIAL = {"bert": 2, "roberta": 2, "llama": 1, "gpt2": 0}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(TEXTS)


def tokenizer_of(folder):
    return Tokenizer(load_tokenizer(read_checkpoint(str(folder))))


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Ours, the bare one from the same folder, and how many special tokens frame a text."""
    folder = KINDS[request.param](tmp_path_factory.mktemp(request.param))
    bare = Reference.from_file(str(folder / "tokenizer.json"))
    return tokenizer_of(folder), bare, SPECIAL[request.param]


@pytest.fixture(scope="module")
def bundled(minilm):
    return tokenizer_of(minilm)


@given(text=TEXT)
def test_ids(pair, text):
    ours, bare, special = pair
    assert ours.num_special == special
    found = ours.encode([text])[0]
    assert found.ids.tolist() == bare.encode(text).ids
    assert found.full_length == len(found.ids)


@given(text=TEXT, limit=st.integers(3, 30), side=st.sampled_from(["left", "right"]))
def test_truncation_is_that_of_tokenizers(pair, text, limit, side):
    ours, bare, _ = pair
    whole = bare.encode(text)
    bare.enable_truncation(limit, direction=side)
    try:
        expected = bare.encode(text)
    finally:
        bare.no_truncation()
    found = ours.truncate(ours.encode([text], offsets=True)[0], limit, side)
    assert found.ids.tolist() == expected.ids
    assert found.full_length == len(whole.ids)
    wanted = [pair if pair[1] > pair[0] else None for pair in expected.offsets]
    assert list(found.offsets) == wanted


@given(text=TEXT)
def test_ids_framed_or_not_are_the_text(pair, text):
    ours, bare, _ = pair
    expected = bare.encode(text).ids
    assert ours.frame(expected, "here").ids.tolist() == expected
    assert ours.frame(bare.encode(text, add_special_tokens=False).ids, "here").ids.tolist() == expected


def test_ids_outside_the_vocabulary(pair):
    ours, _, _ = pair
    for bad in (-1, ours.vocab_size, 10**30):
        with pytest.raises(InvalidInput, match=rf"token id {bad} is not in this model's vocabulary") as caught:
            ours.frame([5, bad], "inputs[3]")
        assert caught.value.where == "inputs[3]"
    assert ours.frame([ours.vocab_size - 1], "here").full_length >= 1


@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=0x17F), min_size=1, max_size=40))
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_offsets_count_from_the_text(bundled, text, prompt):
    found = bundled.encode([text], prompt=prompt, offsets=True)[0]
    assert len(found.offsets) == len(found.ids)
    pairs = [pair for pair in found.offsets if pair]
    assert all(0 <= start < end <= len(text) for start, end in pairs)
    assert pairs == sorted(pairs)
    assert found.offsets[0] is found.offsets[-1] is None  # [CLS] and [SEP]


def test_offsets_name_the_words(bundled):
    text = "Über den Fluss"
    for prompt in ("", "query: "):
        found = bundled.encode([text], prompt=prompt, offsets=True)[0]
        words = bundled.tokens(found.ids)
        shown = [(word, text[slice(*pair)]) for word, pair in zip(words, found.offsets, strict=True) if pair]
        assert shown[0] == ("uber", "Über")
        assert "".join(part for _, part in shown) == text.replace(" ", "")
        prompted = [word for word, pair in zip(words, found.offsets, strict=True) if not pair]
        assert prompted == (["[CLS]", "query", ":", "[SEP]"] if prompt else ["[CLS]", "[SEP]"])


def test_no_offsets_unless_asked_for(bundled):
    assert bundled.encode(TEXTS)[0].offsets == ()


def test_the_prompt_stays_when_the_beginning_is_cut(bundled):
    whole = bundled.encode(["one two three four five"], prompt="query: ", offsets=True)[0]
    cut = bundled.truncate(whole, 6, "left", front=bundled.prompt_length("query: "))
    assert bundled.tokens(cut.ids) == ["[CLS]", "query", ":", "four", "five", "[SEP]"]
    assert len(cut.offsets) == 6


def test_prompt_length_leaves_out_the_closing_token(bundled):
    assert bundled.prompt_length("query: ") == 3  # [CLS] query :


def test_stored_padding_and_truncation_are_not_followed(minilm, bundled):
    """The published tokenizer.json pads to 128 and cuts there; both are the service's to decide."""
    stored = json.loads((minilm / "tokenizer.json").read_text())
    assert stored["truncation"] and stored["padding"]
    assert len(bundled.encode(["word " * 300])[0].ids) == 302
    assert len(bundled.encode(["word"])[0].ids) == 3


def test_lower_case(tmp_path):
    folder = plain_bert(tmp_path / "model")
    plain = tokenizer_of(folder)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    (folder / "modules.json").write_text(
        '[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},'
        ' {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 24}')
    lower = tokenizer_of(folder)
    upper_ids, lower_ids = (plain.encode([text])[0].ids.tolist() for text in ("The WHEEL", "the wheel"))
    assert upper_ids != lower_ids
    assert lower.encode(["The WHEEL"])[0].ids.tolist() == lower_ids
    assert lower.fingerprint() != plain.fingerprint()


def test_from_many_threads(bundled):
    expected = [ids.ids.tolist() for ids in bundled.encode(TEXTS)]
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: bundled.encode(TEXTS, offsets=True), range(200)):
            assert [text.ids.tolist() for text in found] == expected


def test_equal_to_transformers(minilm, bundled):
    theirs = AutoTokenizer.from_pretrained(minilm)
    theirs.backend_tokenizer.no_padding()
    theirs.backend_tokenizer.no_truncation()
    assert [text.ids.tolist() for text in bundled.encode(TEXTS)] == theirs(TEXTS).input_ids
    assert bundled.pad_id == theirs.pad_token_id
    assert bundled.declared_limit == 512


@pytest.mark.parametrize("offsets", [False, True])
def test_few_texts_and_many_have_the_same_ids(pair, offsets):
    """Few are tokenized one by one, many over all cores."""
    ours, _, _ = pair
    texts = (TEXTS * FEW)[: 2 * FEW]
    many = ours.encode(texts, offsets=offsets)
    few = [
        text
        for start in range(0, len(texts), FEW)
        for text in ours.encode(texts[start : start + FEW], offsets=offsets)
    ]
    assert [text.ids.tolist() for text in few] == [text.ids.tolist() for text in many]
    assert [text.offsets for text in few] == [text.offsets for text in many]


def test_a_spec_survives_json(pair):
    ours, _, _ = pair
    spec = TokenizerSpec.from_json(ours.spec.to_json())
    assert spec == ours.spec
    again = Tokenizer(spec)
    assert again.fingerprint() == ours.fingerprint()
    assert again.vocab_size == ours.vocab_size and again.num_special == ours.num_special
    assert again.prompt_length("the wheel") == ours.prompt_length("the wheel")
    for offsets in (False, True):
        found, expected = (each.encode(TEXTS, offsets=offsets) for each in (again, ours))
        assert [text.ids.tolist() for text in found] == [text.ids.tolist() for text in expected]
        assert [text.offsets for text in found] == [text.offsets for text in expected]


def test_splitting_special_tokens_survives_json(tmp_path):
    folder = plain_bert(tmp_path / "model")
    spec = load_tokenizer(read_checkpoint(str(folder)))
    whole = Tokenizer(spec, parse_special_tokens=True)
    edit(folder / "tokenizer_config.json", split_special_tokens=True)
    split = tokenizer_of(folder)
    again = Tokenizer(TokenizerSpec.from_json(split.spec.to_json()))
    lengths = [len(each.encode(["the [SEP]"])[0].ids) for each in (whole, split, again)]
    assert lengths[0] < lengths[1] == lengths[2]
    assert whole.fingerprint() != split.fingerprint() == again.fingerprint()


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"prefix": 5, "suffix": [], "special_ids": []}'])
def test_json_that_is_no_spec(text):
    with pytest.raises(ValueError):
        TokenizerSpec.from_json(text)


def test_a_spec_with_another_field_is_refused(bundled):
    fields = json.loads(bundled.spec.to_json())
    for other in (fields | {"colour": "red"}, {key: fields[key] for key in fields if key != "pad_id"}):
        with pytest.raises(ValueError, match="describes no tokenizer"):
            TokenizerSpec.from_json(json.dumps(other))


@pytest.mark.slow
def test_a_tokenizer_from_its_spec_needs_no_transformers(bundled, tmp_path):
    """transformers takes seconds to import, which a warm start is to be spared."""
    spec = tmp_path / "spec.json"
    spec.write_text(bundled.spec.to_json())
    script = (
        "import sys; from pathlib import Path; from service.encoder.tokenizer import Tokenizer, TokenizerSpec;"
        "found = Tokenizer(TokenizerSpec.from_json(Path(sys.argv[1]).read_text())).encode(['a mill'])[0];"
        "print(found.ids.tolist(), 'transformers' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script, spec], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"{bundled.encode(['a mill'])[0].ids.tolist()} False"


def test_no_padding_token(tmp_path):
    assert tokenizer_of(plain_gpt2(tmp_path / "model")).pad_id == 0


def test_token_types(tmp_path):
    """XLNet closes a text with a token of another type, which would change its states."""
    folder = plain_bert(tmp_path / "model")
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["post_processor"]["single"][-1]["SpecialToken"]["type_id"] = 1
    path.write_text(json.dumps(stored))
    assert tokenizer_of(folder).num_special == 2  # types that are not passed on do no harm
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    with pytest.raises(CheckpointError, match="token types other than 0"):
        tokenizer_of(folder)
