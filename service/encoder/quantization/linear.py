"""Linear layers in int8, for PyTorch on a CPU.

The scale of the inputs is fixed by calibration texts: taken from the batch at hand, it would make a text's vector
depend on the texts beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from service.encoder.progress import Progress, no_progress
from service.encoder.quantization.calibration import Batch
from service.encoder.quantization.kernels import INPUT_LEVELS, WEIGHT_LEVELS, Parts, best_kernel
from service.errors import CheckpointError

logger = logging.getLogger(__name__)

_Kind = TypeVar("_Kind", bound=nn.Module)

_STRENGTHS: Final = (0.0, 0.35, 0.5, 0.65, 0.8)
_CLIPS: Final = (1.0, 0.9, 0.8, 0.7, 0.6)
_WEIGHT_CLIPS: Final = (1.0, 0.95, 0.9, 0.85, 0.8)
_ROWS: Final = 1024
"""Token states that a layer is fitted on."""
_MOST_ERROR: Final = 0.01
"""A layer stays in float32 if its best int8 form misses more of its output's variance than this."""
_FORMAT: Final = "millpond int8 linear 1"


class Int8Linear(nn.Module):
    """A linear layer over int8 weights: states (..., in) float32 -> (..., out) float32, for inference only.

    Safe to call from several threads. `weight` keeps its name, by which T5's code asks for its type.
    """

    weight: Tensor

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.out_features, self.in_features = parts.weight.shape
        for name, tensor in vars(parts).items():
            self.register_buffer(name, tensor)
        self._kernel = best_kernel()(parts)

    def forward(self, states: Tensor) -> Tensor:
        """States (..., in) -> (..., out)."""
        output: Tensor = self._kernel(states)
        return output


def quantize_linears(module: nn.Module, batches: Sequence[Batch], progress: Progress = no_progress) -> nn.Module:
    """Replace the linear layers of an encoder by int8 ones, in place.

    For each layer, the int8 form is chosen that changes its outputs least, in mean square, on the calibration texts:

    * SmoothQuant (Xiao et al., arXiv 2211.10438) shifts the range of input channels into the weights, with a strength
      per layer; its scaling is part of the multiplication that quantises.
    * Inputs and weights are clipped where the mean square error is least (Banner et al., arXiv 1810.05723).
    * The remaining mean error goes into the bias: bias correction (Nagel et al., arXiv 1906.04721).

    A layer stays in float32 if calibration never reaches it, if its class is not exactly `nn.Linear` (its owner may
    read the weight), or if its int8 form misses more than a hundredth of its output's variance.

    Args:
        module: called as ``module(input_ids=..., attention_mask=...)``, in evaluation mode, float32, on the CPU.
        batches: calibration texts.
        progress: receives the batches seen and the layers fitted.

    Raises:
        CheckpointError: there is no layer to replace.
        ConfigError: this build of PyTorch has no int8 layers.
    """
    best_kernel()
    paths = _paths(module, nn.Linear)
    with torch.inference_mode():
        seen = _observe(module, list(paths), batches, progress)
    kept: list[str] = []
    for done, (linear, names) in enumerate(paths.items()):
        progress("fit layers", done, len(paths))
        # Not in inference mode, whose tensors cannot be used outside it.
        with torch.no_grad():
            fitted = _fit(linear, seen[linear]) if seen[linear].rows else None
        if fitted is None:
            kept.append(names[0])
            continue
        for name in names:
            module.set_submodule(name, fitted)
    progress("fit layers", len(paths), len(paths))
    if len(kept) == len(paths):
        raise CheckpointError(
            f"int8 replaces the linear layers of an encoder, and this one ({type(module).__name__}) has none that it "
            "can replace. Set runtime.precision to fp32."
        )
    logger.info("%d linear layers are int8; in float32 stay: %s", len(paths) - len(kept), ", ".join(kept) or "none")
    return module


def save_quantized(module: nn.Module, path: Path) -> None:
    """Write the int8 layers of a module as safetensors."""
    tensors = {
        f"{names[0]}.{key}": tensor.contiguous()
        for layer, names in _paths(module, Int8Linear).items()
        for key, tensor in layer.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": _FORMAT})


def load_quantized(module: nn.Module, path: Path) -> nn.Module:
    """Replace layers of a float32 module by the int8 ones that `save_quantized` wrote; return the module.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another encoder; the module is unchanged.
        ConfigError: this build of PyTorch has no int8 layers.
    """
    best_kernel()
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise CheckpointError(f"{path}: was not written by this version of Millpond. Delete it.")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as int8 weights ({error}). Delete it.") from None
    known = {names[0]: (linear, names) for linear, names in _paths(module, nn.Linear).items()}
    fitted: dict[str, Int8Linear] = {}
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        parts = {key.rpartition(".")[2]: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] == name}
        if name not in known or not _fits(known[name][0], parts):
            raise CheckpointError(f"{path}: its layer {name!r} does not fit this encoder. Delete the file.")
        fitted[name] = Int8Linear(Parts(**parts))
    for name, layer in fitted.items():
        for place in known[name][1]:
            module.set_submodule(place, layer)
    return module


def _paths(module: nn.Module, kind: type[_Kind]) -> dict[_Kind, list[str]]:
    """Return the modules of exactly this class below `module`, each with all its names: layers may be shared."""
    found: dict[_Kind, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        if name and type(part) is kind:
            found.setdefault(part, []).append(name)
    return found


def _fits(linear: nn.Linear, parts: dict[str, Tensor]) -> bool:
    rows, columns = linear.weight.shape
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in parts.items()} == {
        "weight": ((rows, columns), torch.int8),
        "scale": ((rows,), torch.float32),
        "bias": ((rows,), torch.float32),
        "multiplier": ((columns,), torch.float32),
        "zero_point": ((1,), torch.int32),
    }


class _Seen:
    """The inputs of one layer: the range of each channel over all tokens, and a sample of the states."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.low: Tensor = torch.zeros(())
        self.high: Tensor = torch.zeros(())

    def add(self, states: Tensor, mask: Tensor, most: int, generator: torch.Generator) -> None:
        states = _without_padding(states, mask)
        if not len(states):
            return
        self.low = torch.minimum(self.low, states.amin(0))
        self.high = torch.maximum(self.high, states.amax(0))
        self.rows.append(states[torch.randperm(len(states), generator=generator)[:most]])


def _without_padding(states: Tensor, mask: Tensor) -> Tensor:
    """States (batch, time, ..., dim), (batch * time, dim), or of any shape that ends in dim -> (rows, dim)."""
    if states.shape[:2] == mask.shape and states.ndim > 2:
        states = states[mask]
    elif states.ndim == 2 and len(states) == mask.numel():
        states = states[mask.flatten()]
    return states.reshape(-1, states.shape[-1])


def _observe(
    module: nn.Module, linears: Sequence[nn.Linear], batches: Sequence[Batch], progress: Progress
) -> dict[nn.Linear, _Seen]:
    seen = {linear: _Seen() for linear in linears}
    generator = torch.Generator().manual_seed(0)
    most = -(-_ROWS // max(len(batches), 1))
    real = torch.empty(0)

    def watch(linear: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[cast(nn.Linear, linear)].add(inputs[0], real, most, generator)

    hooks = [linear.register_forward_pre_hook(watch) for linear in linears]
    try:
        for done, (ids, mask) in enumerate(batches):
            progress("calibrate", done, len(batches))
            real = torch.from_numpy(mask).bool()
            module(input_ids=torch.from_numpy(ids), attention_mask=real.long())
    finally:
        for hook in hooks:
            hook.remove()
    progress("calibrate", len(batches), len(batches))
    return seen


@dataclass(frozen=True, eq=False)
class _Form:
    """A candidate for the int8 form of a layer."""

    weight: Tensor
    weight_scale: Tensor
    multiplier: Tensor
    zero_point: int
    input_scale: float

    def outputs(self, states: Tensor) -> Tensor:
        """Compute the int8 layer's outputs for states (rows, in), without its bias."""
        levels = ((states * self.multiplier).round_() + self.zero_point).clamp_(0, INPUT_LEVELS)
        sums = (levels - self.zero_point) @ self.weight.T
        return sums * (self.weight_scale * self.input_scale)


def _fit(linear: nn.Linear, seen: _Seen) -> Int8Linear | None:
    """Return the int8 form of a layer that changes its outputs least; None if that is still too much."""
    states = torch.cat(seen.rows)
    states = states[:: max(1, len(states) // _ROWS)].clone()  # outside inference mode a clone is a plain tensor
    exact = states @ linear.weight.T

    def error(form: _Form) -> float:
        return float((form.outputs(states) - exact).square().mean())

    smoothed = {_form(linear.weight, seen, strength, 1.0): strength for strength in _STRENGTHS}
    best = min(smoothed, key=error)
    clipped = (_form(linear.weight, seen, smoothed[best], clip) for clip in _CLIPS[1:])
    best = min([best, *clipped], key=error)
    if error(best) > _MOST_ERROR * float(exact.var(0, correction=0).mean()):
        return None
    correction = (exact - best.outputs(states)).mean(0)
    return Int8Linear(
        Parts(
            weight=best.weight.to(torch.int8),
            scale=best.weight_scale * best.input_scale,
            bias=correction if linear.bias is None else correction + linear.bias,
            multiplier=best.multiplier,
            zero_point=torch.tensor([best.zero_point], dtype=torch.int32),
        )
    )


def _form(weight: Tensor, seen: _Seen, strength: float, clip: float) -> _Form:
    smoothing = _smoothing(weight, torch.maximum(-seen.low, seen.high), strength)
    low = clip * float((seen.low / smoothing).min())
    high = clip * float((seen.high / smoothing).max())
    input_scale = (high - low) / INPUT_LEVELS or 1.0
    integers, weight_scale = _round_weight(weight * smoothing)
    return _Form(
        weight=integers,
        weight_scale=weight_scale,
        multiplier=1.0 / (smoothing * input_scale),
        zero_point=round(-low / input_scale),
        input_scale=input_scale,
    )


def _smoothing(weight: Tensor, largest: Tensor, strength: float) -> Tensor:
    """Return what each input channel is divided by, and its weights multiplied with: SmoothQuant's equation 4."""
    if not strength:
        return torch.ones(weight.shape[1])
    factors = largest.clamp(min=1e-5) ** strength / weight.abs().amax(0).clamp(min=1e-5) ** (1 - strength)
    return factors / factors.log().mean().exp()


def _round_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (out, in) -> integers of the same shape and a scale per row, clipped where the error is least."""
    widest = (weight.abs().amax(1) / WEIGHT_LEVELS).clamp(min=1e-12)
    least = torch.full_like(widest, torch.inf)
    scale = widest
    for clip in _WEIGHT_CLIPS:
        tried = clip * widest
        error = (_integers(weight, tried) * tried[:, None] - weight).square().sum(1)
        scale = torch.where(error < least, tried, scale)
        least = torch.minimum(error, least)
    return _integers(weight, scale), scale


def _integers(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight / scale[:, None]).round_().clamp_(-WEIGHT_LEVELS, WEIGHT_LEVELS)
