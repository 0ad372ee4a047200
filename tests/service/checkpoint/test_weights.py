"""Exactly the weights that transformers loads are read, and two sets of them must be the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from service.checkpoint import read_checkpoint
from service.errors import CheckpointError
from tests.support.checkpoints import edit, embed, plain_bert, served

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def single(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "single"))


@pytest.fixture
def sharded(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "sharded"))
    AutoModel.from_pretrained(whole).save_pretrained(folder, max_shard_size="30KB")
    assert (folder / INDEX).exists()
    (folder / "model.safetensors").unlink(missing_ok=True)
    return folder


def names(folder: Path) -> list[str]:
    return [path.name for path in read_checkpoint(str(folder)).weight_files()]


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught, served(folder, pooling="mean"):
        pass
    assert all(word in str(caught.value) for word in words), caught.value


def beside(single: Path, sharded: Path) -> Path:
    """Put the shards and their index beside the single file."""
    for path in sharded.glob("model*"):
        shutil.copy(path, single)
    return single


def test_what_is_not_loaded_is_not_named(single, sharded):
    for folder in (single, sharded):
        before = names(folder)
        save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
        save_file({"x": torch.zeros(1)}, folder / "model.fp16.safetensors")
        assert names(folder) == before
    assert names(single) == ["model.safetensors"]
    shards = sorted(set(json.loads((sharded / INDEX).read_text())["weight_map"].values()))
    assert len(shards) > 1
    assert names(sharded) == shards


def test_a_file_that_the_config_names_is_the_one_that_is_loaded(single):
    weights = load_file(single / "model.safetensors")
    other = {name: weight + 0.1 for name, weight in weights.items()}
    save_file(other, single / "tuned.safetensors", metadata={"format": "pt"})
    with served(single, pooling="mean") as models:
        before = embed(models, ["the wheel turns"])
    edit(single / "config.json", transformers_weights="tuned.safetensors")
    assert names(single) == ["tuned.safetensors"]
    with served(single, pooling="mean") as models:
        assert abs(embed(models, ["the wheel turns"]) - before).max() > 1e-2
    for wrong in ("missing.safetensors", "../single/model.safetensors", "config.json"):
        edit(single / "config.json", transformers_weights=wrong)
        refused(single, "config.json", wrong, "transformers_weights")


def test_only_stray_weights_are_none(single):
    (single / "model.safetensors").rename(single / "weights.safetensors")
    refused(single, "has no model.safetensors", "weights.safetensors")


def test_two_equal_sets_are_served(single, sharded):
    assert names(beside(single, sharded)) == ["model.safetensors"]
    with served(single, pooling="mean") as models, served(sharded, pooling="mean") as others:
        assert (embed(models, ["a mill"]) == embed(others, ["a mill"])).all()


@pytest.mark.parametrize("difference", ["value", "shape", "name", "type"])
def test_two_sets_that_differ_are_refused(single, sharded, difference):
    key = "encoder.layer.1.output.dense.weight"
    weights = load_file(single / "model.safetensors")
    weight = weights.pop(key)
    changed = {"value": weight * 1.5, "shape": weight[:-1].clone(), "type": weight.double()}
    weights["bert." + key if difference == "name" else key] = changed.get(difference, weight)
    save_file(weights, single / "model.safetensors", metadata={"format": "pt"})
    refused(beside(single, sharded), str(single / "model.safetensors"), INDEX, key, "delete the one not meant")


def test_a_missing_shard_is_named(single, sharded):
    shard = names(sharded)[1]
    (sharded / shard).unlink()
    refused(sharded, str(sharded / INDEX), shard, "there is no such file")
    refused(beside(single, sharded), INDEX, shard, "Keep one of the two")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_named(sharded, content):
    (sharded / INDEX).write_text(content)
    refused(sharded, str(sharded / INDEX))


def test_shards_are_beside_their_index(sharded):
    edit(sharded / INDEX, weight_map={"a": "../single/model.safetensors"})
    refused(sharded, str(sharded / INDEX), "not beside it")


def test_a_damaged_shard_is_named(single, sharded):
    shard = sharded / names(sharded)[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    refused(sharded, str(shard), "damaged")
    refused(beside(single, sharded), shard.name, "damaged")


@pytest.mark.parametrize("base", ["", 3, None])
def test_an_adapter_names_its_base_beside_whole_weights_too(single, base):
    """As transformers has it, which puts the adapter on the base that it names, whatever lies beside it."""
    (single / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    save_file({"x": torch.zeros(1)}, single / "adapter_model.safetensors")
    refused(single, "adapter_config.json", "base_model_name_or_path is", "Write it there")
