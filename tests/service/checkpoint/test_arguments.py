"""Arguments for transformers that change no vector are accepted, those that do are followed or refused."""

from __future__ import annotations

from itertools import cycle

import pytest

from service.checkpoint import arguments, read_checkpoint
from service.errors import CheckpointError
from tests.support.checkpoints import (
    TEXTS,
    close,
    edit,
    embed,
    plain_bert,
    plain_llama,
    plain_roberta,
    reference,
    sentence_transformer,
    served,
)

LONG = " ".join(TEXTS * 3)
ALL = [*TEXTS, LONG]
CONFIG = "sentence_bert_config.json"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("arguments")
    made = {"bert": (plain_bert, "mean"), "roberta": (plain_roberta, "cls"), "llama": (plain_llama, "lasttoken")}
    return {
        name: sentence_transformer(plain(root / f"plain-{name}"), root / name, pooling)
        for name, (plain, pooling) in made.items()
    }


@pytest.fixture(scope="module")
def vectors(folders):
    """Those of sentence-transformers without arguments; a text at a time, since padding at the left moves BERT's."""
    return {name: reference(folder).encode(ALL, batch_size=1) for name, folder in folders.items()}


@pytest.fixture
def set_in(folders):
    """Sets arguments in a model's config until the test ends."""
    before = {folder / CONFIG: (folder / CONFIG).read_text() for folder in folders.values()}

    def put(name, **changes):
        edit(folders[name] / CONFIG, **changes)
        return folders[name]

    yield put
    for path, text in before.items():
        path.write_text(text)


LOADING = {
    **{"trust_remote_code": False, "attn_implementation": "eager", "revision": "main", "code_revision": None},
    **{"torch_dtype": "float32", "dtype": "float32", "cache_dir": "cache", "force_download": False},
    **{"local_files_only": True, "proxies": None, "subfolder": "", "token": None},
}
ENCODER = {
    **{"output_hidden_states": True, "output_attentions": True, "return_dict": True, "use_cache": True},
    **{"num_labels": 3, "id2label": {"0": "a"}, "label2id": {"a": 0}, "problem_type": "regression"},
    **{"finetuning_task": "x", "initializer_range": 0.5, "gradient_checkpointing": True, "torchscript": True},
    **{"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "attention_dropout": 0.5},
    **{"classifier_dropout": 0.5, "reference_compile": False, "unpad_inputs": True},
    **{"use_memory_efficient_attention": False, "add_pooling_layer": False},
}
MODEL = {
    **{"device_map": "cpu", "low_cpu_mem_usage": True, "offload_folder": "x", "use_safetensors": True},
    "weights_only": True,
}
BATCHES = {"padding_side": "left", "pad_to_multiple_of": 8, "return_token_type_ids": False, "verbose": False}
TOKENIZER = {
    **BATCHES,
    **{"use_fast": False, "clean_up_tokenization_spaces": True, "chat_template": "x", "max_length": 10},
    **{"padding": True, "truncation": True, "return_attention_mask": True, "truncation_side": "right"},
    **{"resume_download": True, "use_auth_token": None, "model_max_length": None},
}
CALL = {
    **BATCHES,
    **{"return_length": True, "return_special_tokens_mask": True, "logits_to_keep": 0, "add_special_tokens": True},
    **{"padding": "max_length", "return_attention_mask": True, "return_tensors": "pt", "truncation": True},
}
HARMLESS = [
    *(("config_kwargs", {key: value}) for key, value in (ENCODER | LOADING).items() if "dtype" not in key),
    *(("model_kwargs", {key: value}) for key, value in (MODEL | LOADING).items()),
    *(("processor_kwargs", {key: value}) for key, value in (TOKENIZER | LOADING).items() if value is not None),
    *(("processing_kwargs", {"text": {key: value}}) for key, value in CALL.items()),
    *(("processing_kwargs", {"common": {key: value}}) for key, value in CALL.items() if "padding" not in key),
    ("processing_kwargs", {"chat_template": {"add_generation_prompt": True}, "image": {"size": 3}}),
    *(("tokenizer_args", {"use_fast": fast}) for fast in (True, False)),
    *(("tokenizer_args", {"clean_up_tokenization_spaces": clean}) for clean in (True, False)),
    *(("tokenizer_args", {"padding_side": side}) for side in ("left", "right")),
    ("model_args", {"attn_implementation": "sdpa"}),
    *(("config_args", {key: False}) for key in ("output_hidden_states", "output_attentions", "return_dict")),
    *(("processing_kwargs", {"text": {"padding": padding}}) for padding in (True, "longest")),
    *(("processing_kwargs", {"text": {"truncation": how}}) for how in ("longest_first", "only_first")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "section", "given"),
    [(name, *harmless) for name, harmless in zip(cycle(["bert", "roberta", "llama"]), HARMLESS, strict=False)],
    ids=str,
)
def test_harmless_ones_change_no_vector(folders, vectors, set_in, name, section, given):
    """Neither sentence-transformers' nor what is read here, which is all that a vector depends on."""
    before = read_checkpoint(str(folders[name]))
    folder = set_in(name, **{section: given})
    assert read_checkpoint(str(folder)) == before
    assert close(reference(folder).encode(ALL, batch_size=1), vectors[name])


@pytest.mark.parametrize("name", ["bert", "roberta", "llama"])
def test_models_with_all_of_them_are_served(vectors, set_in, name):
    folder = set_in(
        name,
        model_kwargs=LOADING | ENCODER | MODEL,
        config_kwargs=LOADING | ENCODER,
        processor_kwargs=LOADING | TOKENIZER,
        processing_kwargs={"text": CALL, "common": CALL, "chat_template": {"tokenize": True}},
        **dict.fromkeys(("query_length", "document_length", "query_expansion")),
    )
    with served(folder) as models:
        assert close(embed(models, ALL, truncate="right"), vectors[name])


@pytest.mark.parametrize(
    ("section", "given"),
    [
        ("model_args", {"add_pooling_layer": False}),
        ("model_kwargs", {"add_pooling_layer": True}),
        ("tokenizer_args", {"padding_side": "left", "use_fast": True}),
        ("config_args", {"output_hidden_states": True, "output_attentions": True}),
    ],
)
def test_the_usual_ones(vectors, set_in, section, given):
    folder = set_in("bert", **{section: given})
    assert close(reference(folder).encode(ALL, batch_size=1), vectors["bert"])
    with served(folder) as models:
        assert close(embed(models, ALL, truncate="right"), vectors["bert"])


@pytest.mark.parametrize(
    "changes",
    [
        {"processor_kwargs": {"model_max_length": 10}},
        {"tokenizer_args": {"model_max_length": 12}, "max_seq_length": 20},
        {"processing_kwargs": {"text": {"max_length": 9}}, "max_seq_length": 20},
        {"processing_kwargs": {"text": {"max_length": 8}}, "processor_kwargs": {"model_max_length": 16}},
    ],
)
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_longest_text_is_followed(vectors, set_in, name, changes):
    folder = set_in(name, **changes)
    theirs = reference(folder).encode(ALL, batch_size=1)
    assert not close(theirs, vectors[name], 1e-2)
    with served(folder) as models:
        assert close(embed(models, ALL, truncate="right"), theirs)


REFUSED = [
    ("tokenizer_args", {"do_lower_case": True}, "do_lower_case"),
    ("tokenizer_args", {"truncation_side": "left"}, "truncation_side='left'"),
    ("processor_kwargs", {"add_bos_token": True}, "add_bos_token"),
    ("processor_kwargs", {"add_prefix_space": True, "pad_token": "x"}, "['add_prefix_space', 'pad_token']"),
    ("processor_kwargs", {"model_max_length": 0}, "model_max_length=0"),
    ("processor_kwargs", {"model_max_length": "512"}, "model_max_length='512'"),
    ("config_args", {"is_decoder": True}, "is_decoder"),
    ("config_kwargs", {"max_position_embeddings": 32}, "max_position_embeddings"),
    ("config_kwargs", {"layer_norm_eps": 0.1}, "layer_norm_eps"),
    ("model_args", {"quantization_config": {}}, "quantization_config"),
    ("processing_kwargs", {"text": {"add_special_tokens": False}}, "add_special_tokens=False"),
    ("processing_kwargs", {"text": {"truncation": False}}, "truncation=False"),
    ("processing_kwargs", {"text": {"padding": 1}}, "padding=1"),
    ("processing_kwargs", {"common": {"max_length": 9}}, "max_length"),
    ("processing_kwargs", {"text": []}, "processing_kwargs.text must be an object, not []"),
    ("processing_kwargs", {"audio2": {}}, "audio2"),
]


@pytest.mark.parametrize(("section", "given", "words"), REFUSED)
def test_others_are_refused_by_name(set_in, section, given, words):
    folder = set_in("bert", **{section: given})
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(str(folder))
    assert CONFIG in str(raised.value) and section in str(raised.value) and words in str(raised.value)


def test_every_one_is_proven():
    """No argument is accepted that no case above sets."""
    unproven = {"resume_download", "use_auth_token"}  # which transformers no longer has
    assert set(arguments.OF_ENCODER) - {*ENCODER, *MODEL, *LOADING} == unproven
    assert set(arguments.OF_TOKENIZER) == {*TOKENIZER, *LOADING}
    assert set(arguments.OF_ALL) == set(CALL) and set(arguments.OF_TEXT) == {*CALL, "max_length"}
