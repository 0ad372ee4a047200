"""The int8 products of PyTorch behind one call: states (rows, ..., in) -> (rows, ..., out), both float32.

An input channel j becomes ``clamp(round(x_j * multiplier_j) + zero_point, 0, 255)``. Integer sums are exact, so that
a row's result depends on no other row. Both may be called by several threads at once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from service.errors import ConfigError

INPUT_LEVELS: Final = 255
WEIGHT_LEVELS: Final = 64
"""Without VNNI, a CPU adds pairs of products in 16 bits: 2 * 255 * 64 fits, 2 * 255 * 127 saturates silently.
Eight bits for the inputs and seven for the weights lose less than the reverse: weights have a scale per row."""


@dataclass(frozen=True)
class Parts:
    """The parameters of one layer.

    weight: (out, in) int8, within -64 and 64. scale: (out,) float32, what one unit of the integer sum is worth.
    bias: (out,) float32. multiplier: (in,) float32. zero_point: (1,) int32.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    multiplier: Tensor
    zero_point: Tensor


class Fbgemm(nn.Module):
    """FBGEMM, which quantises as it packs the inputs; the faster of the two on few tokens, and as fast on many."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._multiplier = parts.multiplier
        self._zero_point = int(parts.zero_point)
        engine = torch.backends.quantized.engine
        # Packing follows a process-wide setting. PyTorch plans to remove the tensors it takes; `OneDnn` is there for
        # that day.
        torch.backends.quantized.engine = "fbgemm"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                weight = torch.quantize_per_channel(
                    parts.weight * parts.scale[:, None],
                    parts.scale.double(),
                    torch.zeros(len(parts.scale), dtype=torch.long),
                    axis=0,
                    dtype=torch.qint8,
                )
                self._packed = torch.ops.quantized.linear_prepack(weight, parts.bias)
        finally:
            torch.backends.quantized.engine = engine

    @staticmethod
    def is_available() -> bool:
        """Return whether this build of PyTorch has it."""
        return (
            "fbgemm" in torch.backends.quantized.supported_engines
            and hasattr(torch, "quantize_per_channel")
            and hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
        )

    def forward(self, states: Tensor) -> Tensor:
        """States (rows, ..., in) -> (rows, ..., out)."""
        output: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            states * self._multiplier, 1.0, self._zero_point, self._packed
        )
        return output


class OneDnn(nn.Module):
    """oneDNN, which takes plain int8 tensors."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._multiplier = parts.multiplier
        self._rounding = parts.zero_point + 0.5
        self._scale = parts.scale
        self._weight_zeros = torch.zeros(len(parts.scale), dtype=torch.int32)
        # The zero point's share of the sums is constant; oneDNN would compute it anew with each call.
        self._bias = parts.bias - parts.scale * parts.zero_point * parts.weight.sum(1, dtype=torch.int32)
        self._packed = torch.ops.onednn.qlinear_prepack(parts.weight, None)

    @staticmethod
    def is_available() -> bool:
        """Return whether this build of PyTorch has it."""
        return "onednn" in torch.backends.quantized.supported_engines and hasattr(
            torch.ops.onednn, "qlinear_pointwise"
        )

    def forward(self, states: Tensor) -> Tensor:
        """States (rows, ..., in) -> (rows, ..., out)."""
        levels = torch.addcmul(self._rounding, states, self._multiplier).clamp_(0, INPUT_LEVELS)
        # To uint8 by way of int16: PyTorch vectorises both steps but not the direct conversion.
        inputs = levels.to(torch.int16).to(torch.uint8)
        output: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            *(inputs, 1.0, 0, self._packed, self._scale, self._weight_zeros, self._bias),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        return output


def best_kernel() -> type[Fbgemm] | type[OneDnn]:
    """Return the fastest kernel of this build of PyTorch.

    Raises:
        ConfigError: it has none.
    """
    for kernel in (Fbgemm, OneDnn):
        if kernel.is_available():
            return kernel
    raise ConfigError(
        "runtime.precision: int8 needs a PyTorch that is built with FBGEMM or oneDNN, and this one has neither. "
        "Set precision: fp32, or install another build of PyTorch."
    )
