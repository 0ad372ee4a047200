"""The service with passes that wait instead of computing, as long as a pass of known cost takes on cores of its own.

python -m benchmarks.paced serve --config FILE    # as `millpond serve`

HTTP, the tokenizer, the queue and the admission are the service's. Since a wait needs no processor, what else runs on
the machine hardly changes how long passes take.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.simulation import Costs
from service.cli import main
from service.encoder.runtimes.base import Runtime

_SLOWER: Final = 4.0
"""By which passes take longer than those of docs/benchmarks.md, so that the real work beside them matters less."""
PACE: Final = replace(
    Costs(),
    tokens_per_second=Costs.tokens_per_second / _SLOWER,
    pass_seconds=Costs.pass_seconds * _SLOWER,
    request_seconds=0.0,
    text_seconds=0.0,
    refusal_seconds=0.0,
)
"""What passes take. What requests take beside them is real in the service, and left out of the simulation."""


@dataclass(eq=False)
class _Work:
    left: float
    cores: int


class Cores:
    """Cores that passes share by how many each can use, as those of `benchmarks/simulation.py` do."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._under_way: list[_Work] = []
        self._changed = threading.Condition()

    def work(self, seconds: float, cores: int) -> None:
        """Wait as long as so many core-seconds take, of a pass that can use so many cores."""
        one = _Work(seconds, cores)
        with self._changed:
            self._under_way.append(one)
            self._changed.notify_all()
            while one.left > 0:
                share = min(1.0, self._count / sum(each.cores for each in self._under_way))
                began, speed = perf_counter(), cores * share
                self._changed.wait(one.left / speed)
                one.left -= (perf_counter() - began) * speed
            self._under_way.remove(one)
            self._changed.notify_all()


def pace() -> None:
    """Let the passes of all encoders wait, and give states of ones."""
    cores = Cores(PACE.cores)

    def by_layer(
        self: Runtime, ids: NDArray[np.int64], mask: NDArray[np.bool_], wanted: Collection[int], *, wide: bool = False
    ) -> Mapping[int, Tensor]:
        cores.work(PACE.of_pass(ids.size, wide=wide), PACE.cores if wide else 1)
        return dict.fromkeys(wanted, torch.ones(*ids.shape, self.dim))

    setattr(Runtime, "by_layer", by_layer)  # noqa: B010 (a method is not assigned to)


if __name__ == "__main__":
    pace()
    main()
