"""Runtimes by name, and which of them loads an encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from service.config import RuntimeConfig, runtimes
from service.encoder.loading import Source
from service.encoder.runtimes.base import Runtime, Unfit
from service.encoder.runtimes.machine import auto_precision
from service.encoder.runtimes.static import StaticRuntime
from service.errors import CheckpointError, ConfigError, ServiceError

logger = logging.getLogger(__name__)

T = TypeVar("T")


def find(name: str) -> type[Runtime]:
    """Import a runtime by its name.

    Raises:
        ConfigError: another package offers it, and it cannot be imported.
    """
    try:
        found: type[Runtime] = runtimes()[name].load()
    except Exception as error:  # whatever a foreign module does on import
        raise ConfigError(
            f"runtime.backend: {name} cannot be used ({type(error).__name__}: {error}). Mend or remove its package."
        ) from None
    return found


def load_runtime(source: Source, config: RuntimeConfig, accept: Callable[[Runtime], T]) -> tuple[Runtime, str, T]:
    """Load an encoder into the runtime that the config names; under `auto`, into the first by rank that is fit.

    Args:
        accept: looks at the loaded runtime, and raises `Unfit` where another one should take its place.

    Returns:
        The runtime, in a sentence why it is this one, and what `accept` returned.

    Raises:
        ConfigError: this machine or this installation cannot do what the config asks for.
        CheckpointError: the weights cannot be used, or not in int8.
    """
    if source.checkpoint.table is not None:  # whatever runs the encoders beside it
        kinds: list[type[Runtime]] = [StaticRuntime]
        reason = StaticRuntime.merit
    elif config.backend == "auto":
        kinds = sorted(map(find, runtimes()), key=lambda kind: kind.rank, reverse=True)
        reason = kinds[0].merit
    else:
        kinds = [find(config.backend)]
        reason = f"runtime.backend is {config.backend}"
    error: ServiceError | None = None
    for kind in kinds:
        try:
            return _loaded(kind, source, config, accept, reason)
        except Unfit as unfit:
            reason, error = unfit.reason, unfit.error
    assert error is not None
    raise error


def _loaded(
    kind: type[Runtime], source: Source, config: RuntimeConfig, accept: Callable[[Runtime], T], reason: str
) -> tuple[Runtime, str, T]:
    """Load an encoder into a runtime; under `precision: auto` in fp32 where a faster precision fails."""
    runtime: Runtime | None = None
    try:
        runtime = kind.load(source, config)
        return runtime, reason, accept(runtime)
    except (Unfit, CheckpointError) as error:
        precision = auto_precision(config) if runtime is None else runtime.precision
        unfit = runtime is None and isinstance(error, Unfit)  # whatever the precision
        if config.precision != "auto" or precision == "fp32" or unfit:
            raise
        # As text: a handler that keeps the record would keep the encoder too, by the error's traceback.
        logger.warning("%s is served in fp32, not in %s: %s", source.checkpoint.name, precision, str(error))
        reason = f"{reason}; in fp32, since {precision} failed: {error}"
    runtime = kind.load(source, config.model_copy(update={"precision": "fp32"}))
    return runtime, reason, accept(runtime)
