"""Token states from OpenVINO on the CPU."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.encoder.runtimes.base import available_cores
from service.encoder.runtimes.tracing import StatesOnly, difference, quiet, sample
from service.errors import ServiceError
from service.process import release_pages

# With this package OpenVINO reports its use to its makers; a service reports to nobody.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

GRAPH: Final = "graph.xml"
_HINTS: Final = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}
_INPUTS: Final = ("input_ids", "attention_mask")


class ConversionError(ServiceError):
    """The architecture does not convert."""

    code = "conversion_error"


class OpenVINORuntime:
    """A converted graph.

    It is compiled twice, for both ways in which work arrives: with one stream a core, which gives most texts a
    second, and with all cores in one stream, which gives a single short text in about half the time.

    Args:
        graph: the graph's file, as `convert` or a quantisation saved it.
        precision: fp32, bf16, or int8 for a quantised graph.
        threads: cores to use; all by default.

    """

    backend = "openvino"

    def __init__(self, graph: Path, precision: str, *, threads: int | None = None) -> None:
        import openvino

        self.precision = precision
        self.streams = threads or available_cores()
        core = openvino.Core()
        model = core.read_model(graph)
        self.dim = int(model.output(0).get_partial_shape()[2].get_length())
        shared = {
            "INFERENCE_NUM_THREADS": self.streams,
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            # Pinned threads of both ways would sit on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._narrow: Any = core.compile_model(model, "CPU", {**shared, "NUM_STREAMS": self.streams})
        self._wide: Any = core.compile_model(model, "CPU", {**shared, "NUM_STREAMS": 1})
        self._requests = threading.local()
        # OpenVINO's bindings set themselves up in the first pass; two threads in it at once can wait for each other
        # for good.
        self.prepare_thread()
        for wide in (False, True):
            self.states(np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_), wide=wide)
        # Most weights were packed into other places and are read no more, unlike the rows of the vocabulary.
        release_pages(graph.with_suffix(".bin"))

    def prepare_thread(self) -> None:
        """Make this thread's requests: one may not be shared."""
        self._requests.narrow = self._narrow.create_infer_request()
        self._requests.wide = self._wide.create_infer_request()

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim)."""
        request = self._requests.wide if wide else self._requests.narrow
        request.infer([ids, mask.astype(np.int64)], share_inputs=True, share_outputs=True)
        # The request's memory is written again by its next pass.
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 itself."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_native_int8() -> bool:
    """Whether the processor has instructions for products of int8, which OpenVINO's int8 is made for."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return False
    return True


def convert(module: Any) -> Any:
    """A transformers module as an `openvino.Model` of ids and mask (batch, time) -> states (batch, time, dim).

    Raises:
        ConversionError: it cannot be converted, or the graph gives other states than the module.

    """
    import openvino

    dynamic = openvino.PartialShape([-1, -1])
    try:
        with quiet(), torch.inference_mode():
            ids, mask = sample(module, rows=2, width=7)
            graph = openvino.convert_model(
                StatesOnly(module),
                example_input={"input_ids": ids, "attention_mask": mask},
                input=[(name, dynamic, openvino.Type.i64) for name in _INPUTS],
            )
            compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            reason = difference(
                module, lambda ids, mask: torch.from_numpy(compiled([ids.numpy(), mask.numpy()])[0].copy())
            )
    except Exception as error:  # tracing raises whatever the architecture's code does
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason is not None:
        raise ConversionError(reason)
    return graph


def save(graph: Any, folder: Path) -> None:
    """Write a graph with its weights as they are."""
    import openvino

    try:
        openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    except RuntimeError as error:  # what a full disk is to OpenVINO
        raise OSError(str(error).splitlines()[-1]) from None
