"""A checkpoint's weights as a transformers module."""

from __future__ import annotations

from typing import Any

import torch

from service.checkpoint.checkpoint import Checkpoint
from service.errors import CheckpointError


def load_module(checkpoint: Checkpoint, dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """The encoder of a checkpoint in evaluation mode, its weights from safetensors only.

    Raises:
        CheckpointError: weights are damaged, or some that states depend on are missing.

    """
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights, which is soon done
    enable_progress_bars()  # of downloads, which the line above turns off as well
    encoder_decoder = checkpoint.config.get("is_encoder_decoder") or checkpoint.config.get("model_type") in {
        *("t5", "mt5", "umt5"),
    }
    auto: Any = AutoModelForTextEncoding if encoder_decoder else AutoModel
    try:
        model, report = auto.from_pretrained(
            checkpoint.transformer,
            dtype=dtype,
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
    return model.eval().requires_grad_(False)
