"""Encoders in int8: calibrated on texts, measured on others, and refused if they no longer agree with float32."""

from __future__ import annotations

from service.encoder.quantization.agreement import LEAST, Agreement, measure, vectors
from service.encoder.quantization.calibration import Batch, batches, calibration_texts
from service.encoder.quantization.graph import quantize_graph

__all__ = [
    "LEAST",
    "Agreement",
    "Batch",
    "batches",
    "calibration_texts",
    "measure",
    "quantize_graph",
    "vectors",
]
