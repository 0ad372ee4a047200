"""Token states from PyTorch on the CPU."""

from __future__ import annotations

import os
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.checkpoint import Checkpoint
from service.errors import CheckpointError


class TorchRuntime:
    """A transformers model in evaluation mode.

    One single-threaded stream a core gives more texts a second than one stream over all cores: small matrix
    products do not fill two cores, and no stream waits for another.

    Args:
        checkpoint: the folder to load; safetensors only.
        precision: fp32 or bf16.
        threads: cores to use.
        trust_remote_code: run modelling code that the folder brings.

    Raises:
        CheckpointError: weights are damaged, or some that states depend on are missing.

    """

    backend = "torch"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        precision: Literal["fp32", "bf16"] = "fp32",
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoModel, AutoModelForTextEncoding

        self.precision: str = precision
        self.streams = threads or available_cores()
        encoder_decoder = checkpoint.config.get("is_encoder_decoder") or checkpoint.config.get("model_type") in {
            *("t5", "mt5", "umt5"),
        }
        auto: Any = AutoModelForTextEncoding if encoder_decoder else AutoModel
        try:
            model, report = auto.from_pretrained(
                checkpoint.transformer,
                dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises many kinds for a damaged folder
            reason = " ".join(str(error).split())[:400]
            raise CheckpointError(
                f"{checkpoint.transformer}: its weights cannot be loaded ({type(error).__name__}: {reason})."
            ) from None
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        missing += sorted(key for key, *_ in report["mismatched_keys"])
        if missing:
            raise CheckpointError(
                f"{checkpoint.transformer}: {len(missing)} weights are missing or of another shape, such as "
                f"{missing[0]!r}; the encoder would run on random numbers. Get the folder anew."
            )
        if hasattr(model.config, "use_cache"):
            model.config.use_cache = False  # keys and values are never asked for again
        self._model = model.eval().requires_grad_(False)
        self.dim = int(model.config.get_text_config().hidden_size)

    def prepare_thread(self) -> None:
        """Give this thread one core; PyTorch's setting is a thread's own."""
        torch.set_num_threads(1)

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim)."""
        # Padding at the right leaves the positions of real tokens alone, for causal models too.
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.astype(np.int64))
            )
            return cast(Tensor, output.last_hidden_state)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
