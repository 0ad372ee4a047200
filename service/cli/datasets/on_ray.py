"""Blocks on a Ray cluster: Ray Data sends their numbers to actors, each with a model of its own, and keeps count.

What passes through Ray are numbers of blocks and receipts. Rows are read, and vectors written, by the actors, from
and to folders that all machines share, so that neither the driver nor Ray's object store ever holds any. Ray runs a
block again whose machine is gone; a block that was written before is found, and its file is renamed only once it is
whole, so that each is there once. Imported only where --ray is given.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from service.cli.console import Failure
from service.cli.dataset_folder import MANIFEST, read_manifest
from service.cli.datasets.inputs import Block
from service.cli.datasets.worker import Job, ModelSpec, Receipt, Worker
from service.errors import ServiceError
from service.process import prepare_process

_INSTALL: Final = "`pip install 'millpond[ray]'`"
_IN_FLIGHT: Final = 2
"""Blocks that are sent to an actor at once, so that it is never idle."""


_PATIENCE: Final = 10.0
"""Seconds that a cluster is waited for."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What each actor may use, and how many there are at most; None for what fits the cluster."""

    cpus: float | None
    workers: int | None


def require_ray() -> Any:
    """Return the package `ray` with `ray.data`; raises `Failure` where it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise Failure(f"--ray takes Ray Data, which is not installed ({error}). Install it: {_INSTALL}.", 2) from None
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":  # its own log, beside Millpond's progress; the files of the session have it all
            handler.setLevel(logging.ERROR)
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Be connected to a cluster; raises `Failure` where none answers."""
    ray = require_ray()
    try:
        require_answer(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise Failure(
            f"--ray {address}: no Ray cluster answers ({' '.join(str(error).split())[:300]}). Start one with "
            "`ray start --head`, or name its address, HOST:6379."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def require_answer(address: str) -> None:
    """Raise `OSError` where nothing listens at HOST:PORT, on which Ray waits for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def on_ray(ray: Any, spec: ModelSpec, job: Job, blocks: Sequence[Block], resources: Resources) -> Iterator[Receipt]:
    """Embed blocks, and yield the receipt of each as it is done.

    Raises:
        Failure: as `Worker` does, on any machine; or the cluster has nothing to run on.
    """
    use = _Use.of(ray.nodes(), spec, resources)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    numbers = ray.data.from_items([{"block": block.number} for block in blocks], override_num_blocks=len(blocks))
    workers = min(use.workers, len(blocks))
    receipts = numbers.map_batches(
        RemoteWorker,
        batch_size=1,
        fn_constructor_args=(spec, job, use.cpus, os.getcwd()),  # noqa: PTH109
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT
        ),
        num_cpus=use.cpus,
        num_gpus=use.gpus,
    )
    for row in receipts.iter_rows():
        found = pickle.loads(row["receipt"])
        if isinstance(found, Failure):
            raise found
        yield found


@dataclass(frozen=True, slots=True)
class _Use:
    cpus: float
    gpus: int
    workers: int

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]], spec: ModelSpec, asked: Resources) -> _Use:
        """Choose: an actor a GPU where the model runs on those, else one that has a whole machine, the smallest's."""
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        cores = [found for node in alive if (found := node.get("CPU", 0)) >= 1]
        if spec.config.runtime.device == "cuda":
            cpus, gpus = asked.cpus or 1, 1
            fitting = sum(int(node.get("GPU", 0)) for node in alive)
        else:
            cpus, gpus = asked.cpus or min(cores, default=1), 0
            fitting = sum(int(count // cpus) for count in cores)
        if fitting == 0:
            raise Failure(
                f"the Ray cluster has no machine with {cpus:g} free for a worker: its machines have "
                f"{', '.join(f'{count:g}' for count in cores) or 'no'} CPUs. Give fewer with --worker-cpus."
                if not gpus
                else "the Ray cluster has no GPU, and the config says device: cuda."
            )
        return cls(cpus, gpus, min(asked.workers or fitting, fitting))


class RemoteWorker:
    """A `Worker` in an actor. What goes wrong is a result, since Ray would try again what fails for good.

    Args:
        spec: the model, which is loaded here.
        job: what is done.
        cpus: cores that it may use.
        cwd: the driver's working folder, which relative paths of a config are from.
    """

    def __init__(self, spec: ModelSpec, job: Job, cpus: float, cwd: str) -> None:
        self._failure: Failure | None = None
        self._job = job
        with suppress(OSError):
            os.chdir(cwd)
        try:
            self._worker = self._opened(spec, job, max(1, int(cpus)))
        except (Failure, ServiceError, OSError, ImportError) as error:
            self._failure = _explained(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed the blocks of these numbers; one receipt or `Failure` each, pickled."""
        return {"receipt": [pickle.dumps(self._embed(int(number))) for number in batch["block"]]}

    def _embed(self, number: int) -> Receipt | Failure:
        if self._failure is not None:
            return self._failure
        try:
            return self._worker.embed(self._job.source.blocks[number])
        except (Failure, ServiceError, OSError) as error:
            return _explained(error)

    @staticmethod
    def _opened(spec: ModelSpec, job: Job, cpus: int) -> Worker:
        if not job.folder.exists() or read_manifest(job.folder) != job.manifest:
            raise Failure(
                f"{job.folder} is not the same folder here: it lacks {MANIFEST} as it was written. Give a folder "
                "that all machines of the cluster share."
            )
        prepare_process(cpus)
        runtime = spec.config.runtime
        if runtime.threads == "auto":
            runtime = runtime.model_copy(update={"threads": cpus})
        config = spec.config.model_copy(update={"runtime": runtime})
        return Worker(job, ModelSpec(config, spec.pooling, spec.layers).load())


def _explained(error: Exception) -> Failure:
    """Return an error as one that says on which machine it was, and that can be sent."""
    where = f"on the machine {os.uname().nodename}"
    if isinstance(error, OSError) and error.strerror:
        return Failure(f"{error.filename or 'the output'} {where}: {error.strerror}.")
    status = error.exit_status if isinstance(error, Failure) else 2
    return Failure(f"{error} ({where})", status)
