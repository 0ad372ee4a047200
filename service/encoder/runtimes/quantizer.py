"""Encoders in int8, whatever runs them: calibrated, measured against float32, and kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from service.arrays import Vectors
from service.encoder.loading import Source
from service.encoder.quantization import Agreement, Batch, batches, calibration_texts, measure, vectors
from service.encoder.runtimes.base import Runtime

logger = logging.getLogger(__name__)

_LONGEST: Final = 256
"""Tokens of a calibration text that are used; more of them say nothing new."""
_AGREEMENT: Final = "agreement.json"


class Quantizer:
    """What quantising an encoder takes in any runtime: calibration texts, a measure, and a place in the cache.

    Args:
        source: the encoder.
        calibration: a file of texts; the packaged ones where None.

    Raises:
        ConfigError: the calibration texts cannot be used.
    """

    def __init__(self, source: Source, calibration: Path | None) -> None:
        self._source = source
        self._texts, self._held_out = calibration_texts(calibration)

    @cached_property
    def batches(self) -> list[Batch]:
        """The texts to calibrate with."""
        return self._batches(self._texts)

    def vectors(self, runtime: Runtime) -> Vectors:
        """Return the vectors of the held-out texts, (texts, dim)."""
        runtime.prepare_thread()
        return vectors(
            lambda ids, mask: runtime.states(ids, mask, wide=True),
            self._batches(self._held_out),
            self._source.progress,
        )

    def compare(self, reference: Vectors, runtime: Runtime) -> Agreement:
        """Measure how near a runtime's vectors are to those that `vectors` gave of float32."""
        return measure(reference, self.vectors(runtime))

    def keep(self, kind: str, key: Mapping[str, Any], build: Callable[[Path], Agreement]) -> tuple[Path, Agreement]:
        """Return the folder of an int8 form and its agreement, from the cache where they are there.

        Args:
            kind: what the form is called in the cache.
            key: what it is made from beside the encoder and the texts.
            build: fills a folder, and says how near to float32 the result is.

        Raises:
            CheckpointError: int8 changes the vectors too much.
        """
        name = self._source.checkpoint.name

        def checked(folder: Path) -> None:
            logger.info("quantising %s; the result is kept in %s", name, self._source.artifacts.root)
            agreement = build(folder)
            agreement.check(name, "int8")
            (folder / _AGREEMENT).write_text(json.dumps(asdict(agreement)))

        digest = hashlib.sha256(json.dumps([self._texts, self._held_out]).encode()).hexdigest()
        folder = self._source.artifact(kind, {**key, "calibration": digest}, checked)
        return folder, Agreement(**json.loads((folder / _AGREEMENT).read_text()))

    def _batches(self, texts: list[str]) -> list[Batch]:
        tokenizer = self._source.tokenizer
        longest = min(_LONGEST, self._source.anatomy.positions or _LONGEST)
        rows = [tokenizer.truncate(text, longest).ids for text in tokenizer.encode(texts)]
        return list(batches(rows, pad_id=tokenizer.pad_id))
