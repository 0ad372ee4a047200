"""Token states from PyTorch."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.encoder.runtimes.base import available_cores
from service.encoder.runtimes.tracing import StatesOnly, trace


class TorchRuntime:
    """A transformers module on the CPU or a GPU.

    On the CPU, one single-threaded stream a core gives more texts a second than one stream over all cores: small
    matrix products do not fill two cores, and no stream waits for another. A GPU runs one batch at a time.

    Args:
        module: the encoder, in evaluation mode.
        precision: what its weights are in.
        threads: cores to use; all by default.
        device: where it runs.

    """

    backend = "torch"

    def __init__(self, module: Any, precision: str, *, threads: int | None = None, device: str = "cpu") -> None:
        self.precision = precision
        cores = threads or available_cores()
        self._device = torch.device(device)
        self.streams = cores if device == "cpu" else 1
        # An int8 pass over a few tokens is over before helpers have woken up.
        self._most_threads = 1 if precision == "int8" else cores
        self.dim = int(module.config.get_text_config().hidden_size)
        # An int8 pass is so short that Python's share of it shows.
        self._states = trace(module) if precision == "int8" else StatesOnly(module.to(self._device))

    def prepare_thread(self) -> None:
        """Nothing: the share of cores is set with each pass."""

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim)."""
        torch.set_num_threads(self._most_threads if wide else 1)  # the setting is a thread's own
        # Padding at the right leaves the positions of real tokens alone, for causal models too.
        with torch.inference_mode():
            found = self._states(
                torch.from_numpy(ids).to(self._device), torch.from_numpy(mask.astype(np.int64)).to(self._device)
            )
            return cast(Tensor, found).cpu()
