"""Which runtime serves an encoder, at which precision, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from service.checkpoint.checkpoint import Checkpoint
from service.config import RuntimeConfig
from service.encoder.artifacts import Artifacts
from service.encoder.quantization import Agreement, Progress, quiet
from service.encoder.quantization.quantizer import Quantizer
from service.encoder.runtimes import openvino as ov
from service.encoder.runtimes.base import Runtime
from service.encoder.runtimes.loading import load_module
from service.encoder.runtimes.openvino import ConversionError, OpenVINORuntime
from service.encoder.runtimes.torch import TorchRuntime
from service.encoder.tokenizer import Tokenizer
from service.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

_FORMAT: Final = 1
"""Raised when what is cached for the same checkpoint and versions changes."""
_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Choice:
    """A runtime, in a sentence why it was chosen, and for int8 how near it is to float32."""

    runtime: Runtime
    reason: str
    agreement: Agreement | None = None


def choose_runtime(
    checkpoint: Checkpoint,
    fingerprint: str,
    tokenizer: Tokenizer,
    config: RuntimeConfig,
    artifacts: Artifacts,
    *,
    trust_remote_code: bool = False,
    progress: Progress = quiet,
) -> Choice:
    """Load a checkpoint's weights into what runs them fastest here, within what the config leaves open.

    Args:
        checkpoint: the encoder.
        fingerprint: of its weights and settings.
        tokenizer: its tokenizer, for calibration texts.
        config: what is asked for.
        artifacts: where converted and quantised models are kept.
        trust_remote_code: run modelling code that the checkpoint brings.
        progress: told of the steps of a quantisation.

    Raises:
        ConfigError: this machine or this installation cannot do what the config asks for.
        CheckpointError: the weights cannot be used, or not in int8.

    """
    precision = _precision(config)
    threads = None if config.threads == "auto" else config.threads
    key = {
        "format": _FORMAT,
        "encoder": fingerprint,
        "code": checkpoint.sums("*.py") if trust_remote_code else {},
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }

    def load(dtype: torch.dtype = torch.float32) -> Any:
        return load_module(checkpoint, dtype, trust_remote_code=trust_remote_code)

    def quantizer() -> Quantizer:
        return Quantizer(checkpoint, tokenizer, artifacts, key, calibration=config.calibration, progress=progress)

    def on_torch(reason: str) -> Choice:
        if precision != "int8":
            return Choice(
                TorchRuntime(load(_TYPES[precision]), precision, threads=threads, device=config.device), reason
            )
        module, agreement = quantizer().module(load)
        return Choice(TorchRuntime(module, precision, threads=threads), reason, agreement)

    def on_openvino(reason: str) -> Choice:
        def build(folder: Path) -> None:
            logger.info("converting %s for OpenVINO; the graph is kept in %s", checkpoint.name, artifacts.root)
            ov.save(ov.convert(load()), folder)

        graph = artifacts.get("graph", {**key, "openvino": version("openvino")}, build) / ov.GRAPH
        agreement = None
        if precision == "int8":
            graph, agreement = quantizer().graph(graph)
        return Choice(OpenVINORuntime(graph, precision, threads=threads), reason, agreement)

    if config.device == "cuda":
        return on_torch("runtime.device is cuda")
    if config.backend == "torch":
        return on_torch("runtime.backend is torch")
    if not ov.is_installed():
        missing = "OpenVINO is not installed; it comes with: pip install 'millpond[openvino]'"
        if config.backend == "openvino":
            raise ConfigError(f"runtime.backend: {missing}. Or set backend: torch.")
        return on_torch(missing)
    if config.backend == "openvino":
        try:
            return on_openvino("runtime.backend is openvino")
        except ConversionError as error:
            raise CheckpointError(
                f"{checkpoint.name} does not convert to OpenVINO: {error}. Set runtime.backend to torch or auto."
            ) from None
    if precision == "int8" and not ov.has_native_int8():
        return on_torch("this CPU has no VNNI, and without it PyTorch is the faster one in int8")
    try:
        return on_openvino("OpenVINO is installed and the architecture converts")
    except ConversionError as error:
        return on_torch(f"the architecture does not convert to OpenVINO ({error})")


def _precision(config: RuntimeConfig) -> str:
    """What `precision` comes to on this machine.

    Raises:
        ConfigError: this machine cannot do it.

    """
    if config.device == "cuda":
        if config.backend == "openvino":
            raise ConfigError("runtime.backend: openvino runs on the CPU; with device: cuda, set backend: torch.")
        if not torch.cuda.is_available():
            raise ConfigError(
                f"runtime.device: cuda is not to be had; PyTorch {torch.__version__} sees no GPU. Install a CUDA "
                "build of PyTorch and a driver, or set device: cpu."
            )
        if config.precision == "int8":
            raise ConfigError(
                "runtime.precision: int8 runs on the CPU; with device: cuda, use auto, fp32, bf16 or fp16."
            )
        fastest = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return fastest if config.precision == "auto" else config.precision
    native = ov.has_native_bf16()
    if config.precision == "auto":
        return "bf16" if native else "fp32"
    if config.precision == "fp16":
        raise ConfigError("runtime.precision: fp16 is for device: cuda; on a CPU use auto, fp32, bf16 or int8.")
    if config.precision == "bf16" and not native:
        if config.backend != "torch":
            raise ConfigError(
                "runtime.precision: bf16 needs a CPU with AVX512-BF16 or AMX, and this one has neither. Use auto or "
                "fp32; int8 is the fast one here."
            )
        logger.warning("this CPU has no bf16 instructions: with precision bf16 it is slower than with fp32")
    return config.precision
