"""Adapters of PEFT are merged into the base model that they name, as sentence-transformers puts them on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from service.errors import CheckpointError, ConfigError
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    close,
    edit,
    embed,
    plain_bert,
    reference,
    sentence_transformer,
    served,
)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapted(plain: Path, **settings: object) -> SentenceTransformer:
    """`plain` with an adapter of random weights."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(12)
    model = SentenceTransformer(modules=[Transformer(str(plain)), Pooling(DIM, "mean"), Normalize()], device="cpu")
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], **settings})
    model.add_adapter(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    return model


@pytest.fixture
def base(tmp_path) -> Path:
    return plain_bert(tmp_path / "base")


@pytest.fixture
def folder(base, tmp_path) -> Path:
    """As the installed sentence-transformers saves it."""
    adapted(base).save(str(tmp_path / "model"))
    return tmp_path / "model"


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught, served(folder):
        pass
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "target_modules": "all-linear"}, {"use_dora": True}])
def test_vectors_are_those_of_the_adapted_model(base, tmp_path, settings):
    bare = sentence_transformer(base, tmp_path / "bare", "mean", Normalize())
    model = adapted(base, **settings)
    model.save(str(tmp_path / "model"))
    with served(tmp_path / "model") as models, served(bare) as without:
        assert close(embed(models, TEXTS), model.encode(TEXTS))
        assert not close(embed(models, TEXTS), embed(without, TEXTS), 1e-2)
        if "use_dora" not in settings:  # of which transformers 5.23 does not find the magnitudes that it has saved
            assert close(embed(models, TEXTS), reference(tmp_path / "model").encode(TEXTS))


def test_weights_beside_it_are_not_those_of_the_base(base, folder, tmp_path):
    """As transformers has it: the base is the model that the adapter names."""
    with served(folder) as models:
        vectors = embed(models, TEXTS)
    other = plain_bert(tmp_path / "other", num_hidden_layers=1)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(other / name, folder / name)
    with served(folder) as models:
        assert close(embed(models, TEXTS), vectors)


@pytest.mark.slow
def test_openvino_converts_what_is_merged(folder):
    with served(folder, runtime={"backend": "openvino"}) as models:
        assert models.get().encoder.runtime.backend == "openvino"
        assert close(embed(models, TEXTS), reference(folder).encode(TEXTS))


def test_a_fingerprint_is_of_base_and_adapter(base, folder):
    found = []
    for changed in (None, folder / WEIGHTS, base / "model.safetensors"):
        if changed is not None:
            save_file({name: weight * 1.5 for name, weight in load_file(changed).items()}, changed, {"format": "pt"})
        with served(folder) as models:
            found.append(models.get().fingerprint)
    edit(folder / CONFIG, lora_alpha=16)
    with served(folder) as models:
        found.append(models.get().fingerprint)
    assert len(set(found)) == 4


def test_an_adapter_of_another_base(base, folder, tmp_path):
    wide = plain_bert(tmp_path / "wide", hidden_size=48)
    edit(folder / CONFIG, base_model_name_or_path=str(wide))
    refused(folder, str(folder / WEIGHTS), "is 4 x 24 where the base model has 4 x 48", str(wide))
    deep = plain_bert(tmp_path / "deep", num_hidden_layers=3)
    edit(folder / CONFIG, base_model_name_or_path=str(deep))
    refused(folder, str(folder / WEIGHTS), "layer.2", "is missing", "another model")
    edit(folder / CONFIG, base_model_name_or_path=str(base), target_modules=["query"])
    refused(folder, str(folder / WEIGHTS), "value", "has no place in it")
    edit(folder / CONFIG, target_modules=["q_proj"])
    refused(folder, str(folder / CONFIG), "does not describe an adapter of BertModel")


def test_an_adapter_without_a_tokenizer(base, folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, str(folder), f"Copy the base model's tokenizer files there, from {base}")


def test_a_damaged_adapter(folder):
    weights = load_file(folder / WEIGHTS)
    edit(folder / CONFIG, a_new_key=1)
    refused(folder, str(folder / CONFIG), "a_new_key", "may change the vectors")
    edit(folder / CONFIG, a_new_key=None)
    first = min(weights)
    save_file({**weights, first: torch.full_like(weights[first], torch.nan)}, folder / WEIGHTS)
    refused(folder, str(folder / WEIGHTS), "cannot be merged", "Get it anew")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-3])
    refused(folder, str(folder / WEIGHTS), "damaged, cut short")


def test_without_peft_the_error_says_how_to_get_it(base, tmp_path, monkeypatch):
    folder = sentence_transformer(base, tmp_path / "model", "mean")
    edit(folder / CONFIG, peft_type="LORA", base_model_name_or_path=str(base))
    save_file({"x": torch.zeros(1)}, folder / WEIGHTS)
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"pip install 'millpond\[peft\]'"), served(folder):
        pass
