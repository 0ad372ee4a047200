"""Token states from PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.config import RuntimeConfig
from service.cores import available_cores
from service.encoder.loading import Source
from service.encoder.memory import Footprint
from service.encoder.quantization import Agreement, load_quantized, quantize_linears, save_quantized
from service.encoder.runtimes.base import Runtime
from service.encoder.runtimes.equivalence import difference, sample, silenced
from service.encoder.runtimes.machine import cpu_precision, has_native_bf16, threads
from service.encoder.runtimes.quantizer import Quantizer
from service.errors import ConfigError, brief

logger = logging.getLogger(__name__)

_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WEIGHTS: Final = "int8.safetensors"


class StatesOnly(torch.nn.Module):
    """Token ids and mask, both (batch, time) -> states (batch, time, dim)."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Return the module's last hidden states."""
        return self.module(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class TorchRuntime(Runtime):
    """A transformers module on the CPU or a GPU.

    On the CPU, one single-threaded stream a core gives more texts a second than one stream over all cores: small
    matrix products do not fill two cores, and no stream waits for another. A GPU runs one batch at a time.

    Args:
        module: the encoder, in evaluation mode.
        precision: what its weights are in.
        threads: cores to use; all by default.
        device: where it runs.
        agreement: for int8, how near its vectors are to those of float32.
    """

    backend = "torch"
    rank = 0
    merit = "PyTorch runs every architecture"

    def __init__(
        self,
        module: Any,
        precision: str,
        *,
        threads: int | None = None,
        device: str = "cpu",
        agreement: Agreement | None = None,
    ) -> None:
        self.precision = precision
        self.agreement = agreement
        cores = threads or available_cores()
        self._device = torch.device(device)
        self.streams = cores if device == "cpu" else 1
        # An int8 pass over a few tokens is over before helpers have woken up.
        self._most_threads = 1 if precision == "int8" else cores
        config = module.config.get_text_config()
        self.dim = int(config.hidden_size)
        self.footprint = Footprint.of(config.to_dict(), fused_attention=config._attn_implementation != "eager")
        # An int8 pass is so short that Python's share of it shows.
        self._states = _trace(module) if precision == "int8" else StatesOnly(module.to(self._device))

    @classmethod
    def load(cls, source: Source, config: RuntimeConfig) -> Self:
        """Load a checkpoint's weights, quantised first where the config asks for int8."""
        precision = _precision(config)
        if precision == "int8":
            module, agreement = cls._quantized(source, Quantizer(source, config.calibration))
            return cls(module, precision, threads=threads(config), agreement=agreement)
        module = source.module(_TYPES[precision])
        return cls(module, precision, threads=threads(config), device=config.device)

    @classmethod
    def _quantized(cls, source: Source, quantizer: Quantizer) -> tuple[Any, Agreement]:
        def build(folder: Path) -> Agreement:
            module = source.module()
            reference = quantizer.vectors(cls(module, "fp32"))
            quantize_linears(module, quantizer.batches, source.progress)
            save_quantized(module, folder / _WEIGHTS)
            return quantizer.compare(reference, cls(module, "int8"))

        folder, agreement = quantizer.keep("int8-torch", {}, build)
        return load_quantized(source.module(), folder / _WEIGHTS), agreement

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim)."""
        torch.set_num_threads(self._most_threads if wide else 1)  # the setting is a thread's own
        # Padding at the right leaves the positions of real tokens alone, for causal models too.
        with torch.inference_mode():
            found = self._states(
                torch.from_numpy(ids).to(self._device), torch.from_numpy(mask.astype(np.int64)).to(self._device)
            )
            return cast(Tensor, found).cpu()


def _precision(config: RuntimeConfig) -> str:
    if config.device == "cpu":
        if config.backend == "torch" and config.precision == "bf16" and not has_native_bf16():
            logger.warning("this CPU has no bf16 instructions: with precision bf16 it is slower than with fp32")
            return config.precision
        return cpu_precision(config)
    if not torch.cuda.is_available():
        raise ConfigError(
            f"runtime.device: cuda is not to be had; PyTorch {torch.__version__} sees no GPU. Install a CUDA build "
            "of PyTorch and a driver, or set device: cpu."
        )
    if config.precision == "int8":
        raise ConfigError("runtime.precision: int8 runs on the CPU; with device: cuda, use auto, fp32, bf16 or fp16.")
    fastest = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return fastest if config.precision == "auto" else config.precision


def _trace(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Trace a module, so that a whole pass is one call that holds Python's global lock only to start.

    Short passes lose most of their time to Python and to threads that wait for its lock. A module that cannot be
    traced, or whose trace computes other states, is returned as it is.
    """
    plain = StatesOnly(module)
    try:
        with silenced(), torch.inference_mode():
            traced: Any = torch.jit.trace(plain, sample(module, 2, 7), check_trace=False)  # type: ignore[no-untyped-call]
        reason = difference(module, traced)
    except Exception as error:  # tracing raises whatever the architecture's code does
        reason = brief(error, 200)
    if reason is None:
        return lambda ids, mask: traced(ids, mask)
    logger.warning("its passes cannot be traced and are slower for it (%s)", reason)
    return plain
