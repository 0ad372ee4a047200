"""What this machine can do."""

from __future__ import annotations

import os
from typing import Final

import torch

from service.config import RuntimeConfig
from service.cores import available_cores
from service.errors import ConfigError

_WITHOUT_VNNI: Final = {"SSE41", "AVX", "AVX2", "AVX512_CORE"}
_WITHOUT_BF16: Final = _WITHOUT_VNNI | {"AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE_VNNI"}
_WITHOUT_AMX: Final = _WITHOUT_BF16 | {"AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX10_2_512"}


def threads(config: RuntimeConfig) -> int:
    """Return how many cores a runtime is to use."""
    return available_cores() if config.threads == "auto" else config.threads


def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 itself, and `ONEDNN_MAX_CPU_ISA` lets it."""
    capabilities = torch.cpu.get_capabilities()
    has = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return bool(has) and _isa_limit() not in _WITHOUT_BF16


def has_native_int8() -> bool:
    """Whether the processor has instructions for products of int8, and `ONEDNN_MAX_CPU_ISA` lets it use them."""
    capabilities = torch.cpu.get_capabilities()
    has = any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return has and _isa_limit() not in _WITHOUT_VNNI


def has_amx() -> bool:
    """Whether the processor has tiles (AMX), and `ONEDNN_MAX_CPU_ISA` lets it use them."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16")) and _isa_limit() not in _WITHOUT_AMX


def instructions(config: RuntimeConfig) -> str:
    """Name the instructions that products are made with; with others, results may differ."""
    if config.device == "cuda":
        return torch.cuda.get_device_name()
    known = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    return " ".join([*known, _isa_limit()])


def _isa_limit() -> str:
    """Return the newest instructions that oneDNN, which computes for PyTorch and OpenVINO, is allowed."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()


def int8_advice() -> str | None:
    """Say what serves better than int8 on this CPU, where something does: measured in docs/benchmarks.md."""
    if not has_native_int8():
        return (
            "this CPU has no VNNI, and without it int8 is slower than fp32, by 13 % with all-MiniLM-L6-v2; "
            "set precision: auto"
        )
    if has_amx():
        return (
            "this CPU has AMX, with which int8 is slower than bf16, by 11 % on sentences and 20 % on abstracts with "
            "all-MiniLM-L6-v2, and further from fp32; set precision: auto"
        )
    return None


def auto_precision(config: RuntimeConfig) -> str:
    """Return what `precision: auto` is: the fastest that hardly changes a vector."""
    if config.device == "cuda":
        return (
            "bf16"
            if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
            else "fp16"
        )
    return "bf16" if has_native_bf16() else "fp32"


def cpu_precision(config: RuntimeConfig) -> str:
    """Return the precision that the config asks for, on a CPU; `auto` is the fastest that leaves vectors as they are.

    Raises:
        ConfigError: this CPU cannot do it, or gains nothing by it.
    """
    if config.precision == "auto":
        return auto_precision(config)
    if config.precision == "fp16":
        raise ConfigError("runtime.precision: fp16 is for device: cuda; on a CPU use auto, fp32, bf16 or int8.")
    if config.precision == "bf16" and not has_native_bf16():
        limited = f", as ONEDNN_MAX_CPU_ISA={limit} limits it" if (limit := _isa_limit()) else ""
        raise ConfigError(
            f"runtime.precision: bf16 needs a CPU with AVX512-BF16 or AMX, and this one{limited} has neither. "
            "Use auto or fp32."
        )
    return config.precision
