"""OpenVINO graphs in int8, by NNCF's calibration."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.encoder.progress import Progress, no_progress
from service.encoder.quantization.calibration import Batch
from service.errors import ConfigError

if TYPE_CHECKING:
    import openvino


def quantize_graph(
    graph: openvino.Model, batches: Sequence[Batch], progress: Progress = no_progress
) -> openvino.Model:
    """Return a copy of a graph of ids and mask (batch, time) -> states, with its matrix products in int8.

    NNCF applies its scheme for transformers: SmoothQuant (Xiao et al., arXiv 2211.10438) before the ranges are
    measured, and bias correction after.

    Args:
        graph: its inputs are named input_ids and attention_mask.
        batches: calibration texts.
        progress: receives the number of texts seen, anew for each of NNCF's passes over them.

    Raises:
        ConfigError: NNCF is not installed.
    """
    nncf = _nncf()
    texts = _Texts(batches, progress)
    with _silent():
        quantized: openvino.Model = nncf.quantize(
            graph,
            nncf.Dataset(texts),
            model_type=nncf.ModelType.TRANSFORMER,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(texts),
        )
    return quantized


class _Texts:
    """Yields one text at a time: NNCF would count the padding of a batch as tokens."""

    def __init__(self, batches: Sequence[Batch], progress: Progress) -> None:
        self._rows = [row[real] for ids, mask in batches for row, real in zip(ids, mask, strict=True)]
        self._progress = progress

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        for done, row in enumerate(self._rows, 1):
            self._progress("calibrate", done, len(self._rows))
            yield {"input_ids": row[None], "attention_mask": np.ones((1, len(row)), dtype=np.int64)}


def _nncf() -> Any:
    loggers = logging.getLoggerClass()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import nncf
    except ImportError as error:
        raise ConfigError(
            f"runtime.precision: int8 needs NNCF, which cannot be imported ({error}). Install it with: "
            "pip install 'millpond[openvino]'. Or set precision: auto."
        ) from None
    finally:
        logging.setLoggerClass(loggers)  # importing NNCF changes it for the whole process
    return nncf


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence NNCF, which draws progress bars and logs on standard output."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
