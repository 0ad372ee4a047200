"""How near the vectors of an encoder in half precision are to those in float32, on packaged texts."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Final

from service.config import RuntimeConfig
from service.encoder.loading import Source
from service.encoder.quantization import Agreement
from service.encoder.runtimes.base import Runtime, Unfit
from service.encoder.runtimes.machine import instructions
from service.encoder.runtimes.quantizer import Quantizer
from service.errors import ConfigError

logger = logging.getLogger(__name__)

_MEASURE: Final = 1
"""Version of the measure; increase it when it comes to give other figures."""
_FILE: Final = "agreement.json"


def agreement_of(source: Source, runtime: Runtime, config: RuntimeConfig) -> Agreement | None:
    """Return how near a runtime's vectors are to those in float32, from the cache where they were measured before.

    None in float32 itself, for a runtime that does not compute in it, and where an encoder gives no token states.

    Raises:
        CheckpointError: they are too far away.
    """
    if runtime.agreement is not None or runtime.precision == "fp32" or not source.task.per_token:
        return runtime.agreement

    def build(folder: Path) -> None:
        texts = Quantizer(source, None)
        exact = type(runtime).load(source, config.model_copy(update={"precision": "fp32"}))
        found = texts.compare(texts.vectors(exact), runtime)
        found.check(source.checkpoint.name, runtime.precision)
        (folder / _FILE).write_text(json.dumps(asdict(found)))

    key = {
        "measure": _MEASURE,
        "runtime": [runtime.backend, runtime.version],
        "precision": runtime.precision,
        "instructions": instructions(config),
        "tokenizer": source.tokenizer.fingerprint(),
    }
    try:
        folder = source.artifact("rounding", key, build)
    except (Unfit, ConfigError) as error:
        logger.info("%s %s is not compared with float32: %s", runtime.backend, runtime.precision, error)
        return None
    return Agreement(**json.loads((folder / _FILE).read_text()))
