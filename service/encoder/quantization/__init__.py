"""Encoders in int8: calibrated on texts, measured on others, and refused if they no longer agree with float32."""

from __future__ import annotations

from service.encoder.quantization.agreement import LEAST, Agreement, measure, vectors
from service.encoder.quantization.calibration import Batch, batches, calibration_texts
from service.encoder.quantization.graph import quantize_graph
from service.encoder.quantization.linear import Int8Linear, load_quantized, quantize_linears, save_quantized

__all__ = [
    "LEAST",
    "Agreement",
    "Batch",
    "Int8Linear",
    "batches",
    "calibration_texts",
    "load_quantized",
    "measure",
    "quantize_graph",
    "quantize_linears",
    "save_quantized",
    "vectors",
]
