"""Whether a transformers module is a text encoder: it takes token ids, and computes what its task is, in context."""

from __future__ import annotations

from contextlib import suppress
from inspect import signature
from typing import Any, Final

import torch

from service.checkpoint import Checkpoint
from service.checkpoint.weights import not_finite
from service.encoder.samples import draw, usual
from service.encoder.task import Task
from service.errors import CheckpointError, brief

_TOKENS: Final = 8
_POOL: Final = 64
"""Ids among which the tokens are chosen."""
_PRECISIONS: Final = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
_OTHERS: Final = ("pixel_values", "input_values", "input_features")
"""What models of images or sound take."""
_SPECIAL: Final = "_token_id"
"""How a config's keys for ids of special tokens end."""


def check_module(module: Any, checkpoint: Checkpoint, task: Task) -> None:
    """Run a module on two short sequences.

    Raises:
        CheckpointError: naming the class, what it lacks, and the remedy.
    """
    at = f"{checkpoint.transformer}: {type(module).__name__}"
    precision = _PRECISIONS.get(module.dtype, str(module.dtype))
    remedy = "If it holds an encoder that does, save that part alone and serve it; else choose another model"
    if module.main_input_name != "input_ids":
        raise CheckpointError(f"{at} takes {module.main_input_name}, not token ids, so it embeds no text. {remedy}.")
    try:
        states = _results(module, task)
    except Exception as error:  # modelling code raises many kinds
        wanted = next((name for name in _OTHERS if name in signature(module.forward).parameters), None)
        if wanted is not None:
            raise CheckpointError(
                f"{at} wants {wanted} beside token ids, so it embeds no text alone. {remedy}."
            ) from None
        inexact = "" if precision == "fp32" else f" in {precision}"
        other = f"{remedy}." if not inexact else "Set runtime.precision to fp32."
        raise CheckpointError(
            f"{at} does not run on token ids alone{inexact} ({brief(error, 200)}). {other}"
        ) from None
    if states is None:
        raise CheckpointError(f"{at} gives no {task.result}, so there is nothing to work with. {remedy}.")
    if states.ndim != 3 or states.shape[:2] != (2, _TOKENS if task.per_token else 1):
        shape = " x ".join(map(str, states.shape))
        each = "token" if task.per_token else "text"
        raise CheckpointError(
            f"{at} gives {task.result} of {shape} for 2 x {_TOKENS} tokens, not one a {each}. {remedy}."
        )
    if not states.isfinite().all():
        raise not_finite_states(checkpoint, at, precision, task)
    if torch.equal(*states[:, -1]):
        layers = next((f" ({name} is 0)" for name in LAYERS if checkpoint.config.get(name) == 0), "")
        raise CheckpointError(
            f"{at} {task.constant}, as one without layers{layers} or with "
            "weights of zero does. Correct config.json, or get the folder anew."
        )


def not_finite_states(checkpoint: Checkpoint, what: str, precision: str, task: Task) -> CheckpointError:
    """Return the error of an encoder that gives no numbers, naming the weights that are none."""
    found = not_finite(checkpoint.weight_files(), checkpoint.config, heads=not task.per_token)
    if found is None:
        remedy = "Choose another model" if precision == "fp32" else "Set runtime.precision to fp32"
        return CheckpointError(f"{what} gives {task.result} that are not finite in {precision}. {remedy}.")
    path, name = found
    return CheckpointError(
        f"{what} gives {task.result} that are not finite: {path.name} holds NaN or infinity in {name}. Get the file "
        "anew."
    )


def _results(module: Any, task: Task) -> torch.Tensor | None:
    """Return the results (2, rows, dim) of two sequences that share their last token; None where it has none."""
    config = module.config.get_text_config()
    special = [value for key, value in config.to_dict().items() if key.endswith(_SPECIAL) and isinstance(value, int)]
    drawn = torch.from_numpy(draw(usual(getattr(config, "vocab_size", _POOL), special), (_POOL,), 0))
    first, second = _with_numbers(module, drawn)[: 2 * _TOKENS].view(2, _TOKENS).clone()
    second[-1] = first[-1]
    ids = torch.stack([first, second])
    with torch.inference_mode():
        found: torch.Tensor | None = task.wrap(module)(ids, torch.ones_like(ids))
    return found


def _with_numbers(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Leave out ids whose row of the embedding table is not finite: only texts with such a token fail."""
    with suppress(AttributeError, NotImplementedError):  # some modules have no such table
        kept = ids[module.get_input_embeddings().weight[ids].isfinite().all(1)]
        return kept if len(kept) >= 2 * _TOKENS else ids
    return ids
