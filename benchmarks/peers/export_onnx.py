"""A copy of a model folder with `model_quantized.onnx`: dynamically quantised to int8 by onnxruntime.

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


class States(torch.nn.Module):
    """The encoder with the inputs and the output that the peer looks for."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask (batch, time) -> states (batch, time, dim)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def export(source: Path, target: Path) -> None:
    """Make `target`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        folder, plain = Path(work) / "model", Path(work) / "model.onnx"
        shutil.copytree(source, folder)
        model = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
        example = torch.ones(2, 7, dtype=torch.long)
        sizes = {0: "batch", 1: "time"}
        torch.onnx.export(
            States(model),
            (example, example),
            str(plain),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys(("input_ids", "attention_mask", "last_hidden_state"), sizes),
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(str(plain), str(folder / "model_quantized.onnx"), weight_type=QuantType.QInt8)
        folder.rename(target)


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
