"""Token states from OpenVINO on the CPU."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import re
import sys
import threading
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.checkpoint.weights import not_finite
from service.config import RuntimeConfig
from service.cores import available_cores
from service.encoder.loading import Source
from service.encoder.memory import Footprint
from service.encoder.probe import not_finite_states
from service.encoder.quantization import Agreement, quantize_graph
from service.encoder.runtimes.base import Runtime, Unfit
from service.encoder.runtimes.equivalence import CHECK, difference, sample, silenced
from service.encoder.runtimes.machine import cpu_precision, int8_advice, threads
from service.encoder.runtimes.quantizer import Quantizer
from service.encoder.shapes import AnyShape, ShapeBuckets, Shapes
from service.encoder.task import LAYER_STATES, TOKEN_STATES, Task
from service.errors import CheckpointError, ConfigError, brief
from service.process import in_background

logger = logging.getLogger(__name__)

GRAPH: Final = "graph.xml"
_HINTS: Final = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}
_COMPILED_NODES: Final = {"fp32": 64, "bf16": 1024, "int8": 64}
"""Nodes of each kind that stay compiled, in each stream; by default OpenVINO keeps any number. In bf16 and int8 a
shape of a pass has some eight, which take up to 2 and 8 MB; in fp32 compiling anew costs little."""
_PRIMITIVES: Final = {"fp32": 256, "bf16": 1024, "int8": 512}
"""Operations that oneDNN, which OpenVINO computes with, keeps compiled for all streams; 1,024 by default. In fp32
each new number of tokens in a pass adds some 0.2 MB of them, whatever OpenVINO itself keeps."""
_NO_RULE: Final = re.compile("No conversion rule found for operations: (.*)")
_INPUTS: Final = ("input_ids", "attention_mask")
_MISSING: Final = "OpenVINO is not installed; it comes with: pip install 'millpond[openvino]'"


class ConversionError(Exception):
    """The architecture does not convert."""


class _Compiled:
    """A graph compiled twice, for both ways in which work arrives.

    With one stream a core, which gives most texts a second, and with all cores in one stream, which gives a single
    short text in about half the time.

    Args:
        model: the graph, as OpenVINO has read it.
        file: what it was read from.
        precision: fp32, bf16 or int8.
        threads: cores to use.
    """

    def __init__(self, core: Any, model: Any, file: Path, precision: str, threads: int) -> None:
        shared = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            # Pinned threads of both ways would sit on the same cores.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _COMPILED_NODES[precision],
        }

        def compiled(streams: int) -> Any:
            return in_background(lambda: core.compile_model(model, "CPU", {**shared, "NUM_STREAMS": streams}))

        self._narrow, self._wide = compiled(threads), compiled(1)
        self._requests = threading.local()
        # OpenVINO's bindings set themselves up in the first pass; two threads in it at once can deadlock.
        for wide in (False, True):
            self.passed(np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_), wide=wide)
        # Most weights were packed into other places and are read no more, unlike the rows of the vocabulary.
        _release_pages(file.with_suffix(".bin"))

    def prepare_thread(self) -> None:
        """Make this thread's requests: one may not be shared."""
        self._requests.narrow = self._narrow.create_infer_request()
        self._requests.wide = self._wide.create_infer_request()

    def passed(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool) -> Any:
        """Run token ids and mask, both (batch, time); return the request, whose memory its next pass writes again."""
        if not hasattr(self._requests, "wide"):
            self.prepare_thread()
        request = self._requests.wide if wide else self._requests.narrow
        request.infer([ids, mask.astype(np.int64)], share_inputs=True, share_outputs=True)
        return request


class OpenVINORuntime(Runtime):
    """A converted graph; a second one, which gives the states of every layer, where those are asked for.

    Args:
        graph: the graph's file, as `convert` or a quantisation saved it.
        precision: fp32, bf16, or int8 for a quantised graph.
        threads: cores to use; all by default.
        agreement: for int8, how near its vectors are to those of float32.
        config: the encoder's config.json, for what a pass takes in memory.
        task: what the graph computes.
    """

    backend = "openvino"
    rank = 1
    merit = "OpenVINO is installed and the architecture converts"

    def __init__(
        self,
        graph: Path,
        precision: str,
        *,
        threads: int | None = None,
        agreement: Agreement | None = None,
        config: Mapping[str, Any] = MappingProxyType({}),
        task: Task = TOKEN_STATES,
    ) -> None:
        import openvino

        self.precision = precision
        self.agreement = agreement
        self.streams = threads or available_cores()
        self._layered: _Compiled | None = None
        _limit_primitives(precision)
        core = openvino.Core()
        model = core.read_model(graph)
        self.dim = int(model.output(0).get_partial_shape()[2].get_length())
        fused = any(node.get_type_name() == "ScaledDotProductAttention" for node in model.get_ops())
        sizes = {"hidden_size": self.dim, **config} if task.per_token else config
        self.footprint = Footprint.of(sizes, fused_attention=fused, numbers=task.numbers(self.dim))
        self._plain = _Compiled(core, model, graph, precision, self.streams)

    @property
    def version(self) -> str:
        """OpenVINO's."""
        return version("openvino")

    @classmethod
    def load(cls, source: Source, config: RuntimeConfig) -> Self:
        """Convert a checkpoint, quantising it where the config asks for int8; both are kept in the cache."""
        precision = _precision(config)
        _limit_primitives(precision)
        name = source.checkpoint.name

        def build(folder: Path) -> None:
            logger.info("converting %s for OpenVINO; the graph is kept in %s", name, source.artifacts.root)
            save(convert(source.module(), source.task), folder)

        try:
            graph = source.artifact("graph", {"openvino": version("openvino"), "check": CHECK}, build) / GRAPH
        except ConversionError as error:
            heads = not source.task.per_token
            if not_finite(source.checkpoint.weight_files(), source.checkpoint.config, heads=heads):
                broken = not_finite_states(source.checkpoint, name, "fp32", source.task)
                if precision == "int8":
                    raise broken from None
                raise Unfit(broken, f"the weights hold NaN or infinity, and the graph does too ({error})") from None
            if precision == "int8":
                raise CheckpointError(
                    f"{name}: int8 is for OpenVINO, and it does not convert: {error}. Set runtime.precision to auto."
                ) from None
            refused = f"{name} does not convert to OpenVINO: {error}. Set runtime.backend to torch or auto."
            reason = f"the architecture does not convert to OpenVINO ({error})"
            raise Unfit(CheckpointError(refused), reason) from None
        agreement = None
        if precision == "int8":
            graph, agreement = cls._quantized(graph, source, Quantizer(source, config.calibration))
            if advice := int8_advice():
                logger.warning("runtime.precision: int8: %s", advice)
        try:
            return cls(
                graph,
                precision,
                threads=threads(config),
                agreement=agreement,
                config=source.checkpoint.config,
                task=source.task,
            )
        except RuntimeError as error:  # what a graph that OpenVINO cannot run is to it
            reason = f"OpenVINO does not run it ({brief(error, 200)})"
            raise Unfit(CheckpointError(f"{name}: {reason}. Set runtime.backend to torch or auto."), reason) from None

    @classmethod
    def _quantized(cls, graph: Path, source: Source, quantizer: Quantizer) -> tuple[Path, Agreement]:
        def build(folder: Path) -> Agreement:
            import openvino

            reference = quantizer.vectors(cls(graph, "fp32"))
            model = openvino.Core().read_model(graph)
            save(quantize_graph(model, quantizer.batches, source.progress), folder)
            return quantizer.compare(reference, cls(folder / GRAPH, "int8"))

        try:
            nncf = version("nncf")
        except PackageNotFoundError:  # `quantize_graph` says so
            nncf = None
        folder, agreement = quantizer.keep("int8-graph", {"nncf": nncf}, build)
        return folder / GRAPH, agreement

    def shapes(self, max_batch_tokens: int, longest: int) -> Shapes:
        """Return a fixed set of shapes where each new one is compiled at some cost: in bf16 and int8."""
        return AnyShape() if self.precision == "fp32" else ShapeBuckets(max_batch_tokens, longest)

    def prepare_thread(self) -> None:
        """Make this thread's requests; those of the second graph are made when a thread first needs one."""
        self._plain.prepare_thread()

    def carry_layers(self, source: Source) -> None:
        """Convert the checkpoint once more, to a graph that gives the states of every layer, kept in the cache."""
        import openvino

        name = source.checkpoint.name
        if self.precision == "int8":
            raise ConfigError(
                f"{name}: int8 is quantised for the states of the last layer, so those of others are not to be had "
                "in it. Set runtime.precision: auto, or layers: last."
            )

        def build(folder: Path) -> None:
            logger.info("converting %s for OpenVINO with every layer; kept in %s", name, source.artifacts.root)
            save(convert(source.module(), LAYER_STATES), folder)

        try:
            key = {"openvino": version("openvino"), "check": CHECK}
            graph = source.artifact("layered-graph", key, build) / GRAPH
            core = openvino.Core()
            model = core.read_model(graph)
            self._layered = _Compiled(core, model, graph, self.precision, self.streams)
        except (ConversionError, RuntimeError) as error:
            raise CheckpointError(
                f"{name}: OpenVINO does not give the states of its layers ({brief(error, 200)}). Set "
                "runtime.backend: torch, or layers: last."
            ) from None
        self.depth = len(model.outputs) - 1

    def layers(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], wanted: Collection[int], *, wide: bool = False
    ) -> Mapping[int, Tensor]:
        """Return states (batch, time, dim) by layer; arguments as for `states`."""
        assert self._layered is not None and self.depth is not None
        request = self._layered.passed(ids, mask, wide=wide)
        outputs = range(self.depth + 1)
        return {layer: torch.from_numpy(request.get_output_tensor(outputs[layer]).data.copy()) for layer in wanted}

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> what the task gives (batch, rows, dim)."""
        request = self._plain.passed(ids, mask, wide=wide)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return False
    return True


def _limit_primitives(precision: str) -> None:
    """Limit what oneDNN keeps, unless the user has; it asks once, when it first computes, as for a conversion."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRIMITIVES[precision]))


def _precision(config: RuntimeConfig) -> str:
    if config.device == "cuda":
        error = ConfigError("runtime.backend: openvino runs on the CPU; with device: cuda, set backend: torch.")
        raise Unfit(error, "runtime.device is cuda")
    precision = cpu_precision(config)
    if not is_installed():
        if precision == "int8":
            raise ConfigError(f"runtime.precision: int8 is for OpenVINO. {_MISSING}. Or set precision: auto.")
        raise Unfit(ConfigError(f"runtime.backend: {_MISSING}. Or set backend: torch."), _MISSING)
    return precision


def convert(module: Any, task: Task = TOKEN_STATES) -> Any:
    """Convert a transformers module: `openvino.Model` of ids and mask (batch, time) -> results (batch, rows, dim).

    Args:
        module: the encoder.
        task: what the graph is to give.

    Raises:
        ConversionError: it cannot be converted, or the graph gives other results than the module.
    """
    try:
        return _convert(module, task)
    except ConversionError as error:
        attention = module.config._attn_implementation
        if attention == "eager" or not hasattr(module, "set_attn_implementation"):
            raise
        # OpenVINO's sdpa gives NaN to a padding token that sees only others, as in a sliding window, and the next
        # layer spreads it. Transformers' own products with a finite mask do not, and are fused just as well.
        module.set_attn_implementation("eager")
        try:
            return _convert(module, task)
        except ConversionError:
            raise error from None
        finally:
            module.set_attn_implementation(attention)


def _convert(module: Any, task: Task) -> Any:
    import openvino

    dynamic = openvino.PartialShape([-1, -1])
    try:
        with silenced(), torch.inference_mode():
            ids, mask = sample(module, rows=2, width=7)
            graph = openvino.convert_model(
                task.wrap(module),
                example_input={"input_ids": ids, "attention_mask": mask},
                input=[(name, dynamic, openvino.Type.i64) for name in _INPUTS],
            )
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": available_cores()}
            compiled = openvino.Core().compile_model(graph, "CPU", settings)

            def states(ids: Tensor, mask: Tensor) -> list[Tensor]:
                found = compiled([ids.numpy(), mask.numpy()])
                return [torch.from_numpy(found[output].copy()) for output in range(len(graph.outputs))]

            reason = difference(module, states, task)
    except Exception as error:  # tracing raises whatever the architecture's code does
        without = _NO_RULE.search(str(error))
        reason = f"OpenVINO has no {without[1]}" if without else brief(error, 200)
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


def _release_pages(file: Path) -> None:
    """Return the memory in which a file is mapped to the OS; pages that are read again come back by themselves."""
    if sys.platform != "linux":
        return
    name = str(file.resolve())
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(name):
            start, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
