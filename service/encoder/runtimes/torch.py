"""Token states from PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.config import RuntimeConfig
from service.cores import available_cores
from service.encoder.loading import Source
from service.encoder.memory import Footprint
from service.encoder.runtimes.base import Runtime
from service.encoder.runtimes.machine import auto_precision, cpu_precision, has_native_bf16, threads
from service.encoder.task import TOKEN_STATES, EveryLayer, Task
from service.errors import ConfigError

logger = logging.getLogger(__name__)

_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_FIRST_ON_A_GPU: Final = (1, 4, 16, 64, 128)
"""Rows of passes over 8 tokens, which every model can take, from a short text to a full batch."""


class TorchRuntime(Runtime):
    """A transformers module on the CPU or a GPU.

    On the CPU, one single-threaded stream a core gives more texts a second than one stream over all cores: small
    matrix products do not fill two cores, and no stream waits for another. A GPU runs one batch at a time.

    Args:
        module: the encoder, in evaluation mode.
        precision: what its weights are in.
        threads: cores to use; all by default.
        device: where it runs.
        task: what it computes.
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
        task: Task = TOKEN_STATES,
    ) -> None:
        self.precision = precision
        self._cores = threads or available_cores()
        self._device = torch.device(device)
        config = module.config.get_text_config()
        self._states = task.wrap(module.to(self._device))
        self._layers = EveryLayer(module)
        with torch.inference_mode():
            few = torch.ones((1, 8), dtype=torch.int64, device=self._device)  # some architectures fail on one alone
            self.dim = int(self._states(few, few).shape[2])
            self.depth = _depth(self._layers, few)
            fused = config._attn_implementation != "eager"
            self.footprint = Footprint.of(config.to_dict(), fused_attention=fused, numbers=task.numbers(self.dim))
            before = _hanging(module)
            more = torch.ones((1, 9), dtype=torch.int64, device=self._device)
            self._states(more, more)
        self.stateful = not _same(before, _hanging(module))
        self.streams = self._cores if device == "cpu" and not self.stateful else 1
        self._alone: AbstractContextManager[object] = Lock() if self.stateful else nullcontext()

    @property
    def version(self) -> str:
        """PyTorch's."""
        return torch.__version__

    @classmethod
    def load(cls, source: Source, config: RuntimeConfig) -> Self:
        """Load a checkpoint's weights."""
        precision = _precision(config)
        if config.device == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles for each new shape, and keeps what it compiled
        module = source.module(_TYPES[precision])
        return cls(module, precision, threads=threads(config), device=config.device, task=source.task)

    def prepare_thread(self) -> None:
        """Load the kernels of a GPU: the first passes of a thread take up to seconds there."""
        if self._device.type == "cuda":
            for rows in _FIRST_ON_A_GPU:
                self.states(np.ones((rows, 8), np.int64), np.ones((rows, 8), np.bool_))

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> what the task gives (batch, rows, dim)."""
        torch.set_num_threads(self._cores if wide or self.stateful else 1)  # the setting is a thread's own
        # Padding at the right leaves the positions of real tokens alone, for causal models too.
        with self._alone, torch.inference_mode():
            found = self._states(
                torch.from_numpy(ids).to(self._device), torch.from_numpy(mask.astype(np.int64)).to(self._device)
            )
            return self._here(found)

    def layers(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], wanted: Collection[int], *, wide: bool = False
    ) -> Mapping[int, Tensor]:
        """Return states (batch, time, dim) by layer; arguments as for `states`."""
        torch.set_num_threads(self._cores if wide or self.stateful else 1)
        with self._alone, torch.inference_mode():
            found = self._layers(
                torch.from_numpy(ids).to(self._device), torch.from_numpy(mask.astype(np.int64)).to(self._device)
            )
            return {layer: self._here(found[layer]) for layer in wanted}

    def _here(self, states: Tensor) -> Tensor:
        return states if self._device.type == "cpu" else states.float().cpu()


def _depth(layers: EveryLayer, ids: Tensor) -> int | None:
    """Return how many layers an architecture gives the states of; None where it does not, or of another kind."""
    try:
        found = layers(ids, torch.ones_like(ids))
    except Exception:  # modelling code raises many kinds where it has no hidden states
        return None
    shapes = {states.shape if isinstance(states, Tensor) else None for states in found}
    return len(found) - 1 if shapes == {found[-1].shape} and len(found) > 1 else None


def _hanging(module: Any) -> list[tuple[Tensor, int]]:
    """Return the tensors that hang on a module and its parts beside its weights, and how often each was written."""
    return [
        (value, 0 if value.is_inference() else value._version)
        for part in module.modules()
        for value in (*vars(part).values(), *vars(part)["_buffers"].values())
        if isinstance(value, Tensor)
    ]


def _same(before: list[tuple[Tensor, int]], after: list[tuple[Tensor, int]]) -> bool:
    return len(before) == len(after) and all(
        old is new and writes == more for (old, writes), (new, more) in zip(before, after, strict=True)
    )


def _precision(config: RuntimeConfig) -> str:
    if config.device == "cpu":
        if config.precision == "int8":
            raise ConfigError("runtime.precision: int8 is for OpenVINO. Set backend: auto, or precision: auto.")
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
    return auto_precision(config) if config.precision == "auto" else config.precision
