"""What this machine can do."""

from __future__ import annotations

import os

import torch

from service.config import RuntimeConfig
from service.errors import ConfigError


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(config: RuntimeConfig) -> int:
    """Return how many cores a runtime is to use."""
    return available_cores() if config.threads == "auto" else config.threads


def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 itself."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_native_int8() -> bool:
    """Whether the processor has instructions for products of int8."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def int8_advice() -> str | None:
    """Say what serves better than int8 on this CPU, where something does: measured in docs/benchmarks.md."""
    if not has_native_int8():
        return (
            "this CPU has no VNNI, and without it int8 is slower than fp32, by 13 % with all-MiniLM-L6-v2; "
            "set precision: auto"
        )
    if has_native_bf16():
        return "this CPU has bf16, which is as fast as int8 and nearer to fp32; set precision: auto"
    return None


def cpu_precision(config: RuntimeConfig) -> str:
    """Return the precision that the config asks for, on a CPU; `auto` is the fastest that leaves vectors as they are.

    Raises:
        ConfigError: this CPU cannot do it, or gains nothing by it.
    """
    if config.precision == "auto":
        return "bf16" if has_native_bf16() else "fp32"
    if config.precision == "fp16":
        raise ConfigError("runtime.precision: fp16 is for device: cuda; on a CPU use auto, fp32, bf16 or int8.")
    if config.precision == "bf16" and not has_native_bf16():
        raise ConfigError(
            "runtime.precision: bf16 needs a CPU with AVX512-BF16 or AMX, and this one has neither. Use auto or fp32."
        )
    return config.precision
