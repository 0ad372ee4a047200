"""Copy a model folder and add `model_quantized.onnx`, dynamically quantised to int8 by onnxruntime.

    PYTHON export_onnx.py SOURCE TARGET

Runs in the peer's environment and imports nothing of this project.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModel

PLAIN = {"attn_implementation": "eager", "return_dict": False, "add_pooling_layer": False}
INPUTS, OUTPUT = ["input_ids", "attention_mask"], "last_hidden_state"
"""The names that the peer looks for."""


def export(source: Path, target: Path) -> None:
    """Make `target`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        folder, plain = Path(work) / "model", Path(work) / "model.onnx"
        shutil.copytree(source, folder)
        model = AutoModel.from_pretrained(source, **PLAIN).eval()
        example = torch.ones(2, 7, dtype=torch.long)
        torch.onnx.export(
            model,
            (example, example),
            str(plain),
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch", 1: "time"} for name in (*INPUTS, OUTPUT)},
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(str(plain), str(folder / "model_quantized.onnx"), weight_type=QuantType.QInt8)
        folder.rename(target)


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
