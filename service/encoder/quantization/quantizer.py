"""Encoders in int8: made once from calibration texts, measured against float32, and kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from service.checkpoint.checkpoint import Checkpoint
from service.encoder.artifacts import Artifacts
from service.encoder.quantization import (
    Agreement,
    Batch,
    Progress,
    batches,
    calibration_texts,
    load_quantized,
    measure,
    quantize_graph,
    quantize_linears,
    save_quantized,
    vectors,
)
from service.encoder.runtimes import openvino as ov
from service.encoder.runtimes.base import Runtime
from service.encoder.runtimes.openvino import OpenVINORuntime
from service.encoder.runtimes.torch import TorchRuntime
from service.encoder.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_LONGEST: Final = 256
"""Tokens of a calibration text that are used; more of them say nothing new."""
_WEIGHTS: Final = "int8.safetensors"
_AGREEMENT: Final = "agreement.json"


class Quantizer:
    """Makes an encoder's int8 form, or finds it where it was made before.

    Args:
        checkpoint: the encoder.
        tokenizer: its tokenizer.
        artifacts: where the result is kept.
        key: everything but the calibration texts that the result is made from.
        calibration: a file of texts; the packaged ones where None.
        progress: told of the steps.

    Raises:
        ConfigError: the calibration texts cannot be used.

    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        artifacts: Artifacts,
        key: Mapping[str, Any],
        *,
        calibration: Path | None,
        progress: Progress,
    ) -> None:
        self._checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._artifacts = artifacts
        self._texts, self._held_out_texts = calibration_texts(calibration)
        digest = hashlib.sha256(json.dumps([self._texts, self._held_out_texts]).encode()).hexdigest()
        self._key = {**key, "calibration": digest}
        self._progress = progress

    def module(self, load: Callable[[], Any]) -> tuple[Any, Agreement]:
        """A PyTorch module with int8 layers, and how near its vectors are to float32's.

        Args:
            load: gives the module in float32.

        Raises:
            CheckpointError: int8 changes the vectors too much.

        """

        def build(folder: Path) -> None:
            module = load()
            reference = self._vectors(TorchRuntime(module, "fp32"))
            quantize_linears(module, self._fitting, self._progress)
            self._keep(folder, measure(reference, self._vectors(TorchRuntime(module, "int8"))))
            save_quantized(module, folder / _WEIGHTS)

        folder = self._get("int8-torch", {}, build)
        return load_quantized(load(), folder / _WEIGHTS), _agreement(folder)

    def graph(self, path: Path) -> tuple[Path, Agreement]:
        """The file of an OpenVINO graph in int8, and how near its vectors are to float32's.

        Args:
            path: the graph in float32.

        Raises:
            ConfigError: NNCF is not installed.
            CheckpointError: int8 changes the vectors too much.

        """

        def build(folder: Path) -> None:
            import openvino

            reference = self._vectors(OpenVINORuntime(path, "fp32"))
            ov.save(quantize_graph(openvino.Core().read_model(path), self._fitting, self._progress), folder)
            self._keep(folder, measure(reference, self._vectors(OpenVINORuntime(folder / ov.GRAPH, "int8"))))

        folder = self._get("int8-graph", {"nncf": _version("nncf")}, build)
        return folder / ov.GRAPH, _agreement(folder)

    def _get(self, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        def announced(folder: Path) -> None:
            logger.info("quantising %s; the result is kept in %s", self._checkpoint.name, self._artifacts.root)
            build(folder)

        return self._artifacts.get(kind, {**self._key, **key}, announced)

    def _keep(self, folder: Path, agreement: Agreement) -> None:
        agreement.check(self._checkpoint.name)
        (folder / _AGREEMENT).write_text(json.dumps(asdict(agreement)))

    def _vectors(self, runtime: Runtime) -> Any:
        def states(ids: Any, mask: Any) -> Any:
            return runtime.states(ids, mask, wide=True)

        runtime.prepare_thread()
        return vectors(states, self._batches(self._held_out_texts), self._progress)

    @cached_property
    def _fitting(self) -> list[Batch]:
        return self._batches(self._texts)

    def _batches(self, texts: list[str]) -> list[Batch]:
        longest = min(_LONGEST, self._checkpoint.position_limit or _LONGEST)
        rows = [self._tokenizer.truncate(text, longest).ids for text in self._tokenizer.encode(texts)]
        return list(batches(rows, pad_id=self._tokenizer.pad_id))


def _agreement(folder: Path) -> Agreement:
    return Agreement(**json.loads((folder / _AGREEMENT).read_text()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:  # what is missing is said where it is needed
        return None
