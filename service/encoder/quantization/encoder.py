"""A whole encoder to int8 in PyTorch: texts, calibration, and the measure of what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.checkpoint import Checkpoint
from service.config import RuntimeConfig
from service.encoder.loading import load_module
from service.encoder.quantization.agreement import Agreement, measure, vectors
from service.encoder.quantization.calibration import Batch, calibration_batches
from service.encoder.quantization.linear import quantize_linears
from service.encoder.quantization.progress import Progress, quiet
from service.encoder.tokenizer import Tokenizer, load_tokenizer


class Quantize(Protocol):
    """What `millpond quantize` calls for each encoder."""

    def __call__(
        self, checkpoint: Checkpoint, runtime: RuntimeConfig, progress: Progress, *, trust_remote_code: bool = False
    ) -> Agreement:
        """Quantise an encoder; gives how near the result is to float32.

        Raises:
            CheckpointError: it cannot be loaded, or int8 changes its vectors too much.
            ConfigError: the calibration texts cannot be used, or this machine cannot do it.

        """


def quantize(
    checkpoint: Checkpoint, runtime: RuntimeConfig, progress: Progress, *, trust_remote_code: bool = False
) -> Agreement:
    """Quantise an encoder for PyTorch and measure it; nothing is kept. See `Quantize`."""
    tokenizer = Tokenizer(load_tokenizer(checkpoint, trust_remote_code=trust_remote_code))
    calibration, held_out = calibration_batches(runtime.calibration, checkpoint, tokenizer)
    module = load_module(checkpoint, torch.float32, trust_remote_code=trust_remote_code)
    agreement = quantize_module(module, calibration, held_out, progress)
    agreement.check(checkpoint.name)
    return agreement


def quantize_module(
    module: nn.Module, calibration: Sequence[Batch], held_out: Sequence[Batch], progress: Progress = quiet
) -> Agreement:
    """Replace a float32 encoder's linear layers by int8 ones, in place; gives how near it still is to itself.

    Raises:
        ConfigError: this build of PyTorch has no int8 layers.

    """

    def states(ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        output: Any = module(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask).long())
        found: Tensor = output.last_hidden_state
        return found

    reference = vectors(states, held_out, progress)
    quantize_linears(module, calibration, progress)
    return measure(reference, vectors(states, held_out, progress))
