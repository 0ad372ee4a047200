"""Token states of static models: rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from service.arrays import Floats, Ids
from service.config import RuntimeConfig
from service.encoder.loading import Source
from service.encoder.memory import Footprint
from service.encoder.runtimes.base import MeansRuntime
from service.encoder.runtimes.machine import threads
from service.encoder.table import load_table

_FLOAT: Final = 4


class StaticRuntime(MeansRuntime):
    """A table with a row for each token, in float32 on the CPU whatever the config says of other encoders.

    A mean over tokens is made without laying their states out: in a fraction of the time of a switch of threads.

    Args:
        table: the vectors of tokens, (rows, dim).
        threads: cores to use.
    """

    backend = "static"
    rank = 0
    merit = "it is a static model, of which rows are looked up"

    def __init__(self, table: Floats, threads: int) -> None:
        self.precision = "fp32"
        self.streams = threads
        self.dim = table.shape[1]
        self.footprint = Footprint(token=2 * _FLOAT * self.dim, pair=0)
        self._rows = table
        self._table = torch.from_numpy(table)

    @property
    def version(self) -> str:
        """PyTorch's."""
        return torch.__version__

    @classmethod
    def load(cls, source: Source, config: RuntimeConfig) -> Self:
        """Read the table."""
        table = source.checkpoint.table
        assert table is not None, "the registry gives this runtime static models alone"
        return cls(load_table(source.checkpoint, table), threads(config))

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids (batch, time), padded at the right -> states (batch, time, dim)."""
        torch.set_num_threads(self.streams if wide else 1)  # the setting is a thread's own
        return torch.nn.functional.embedding(torch.from_numpy(ids), self._table)

    def means(self, rows: Sequence[Ids]) -> Tensor:
        """Token ids of texts, one array a text, none empty -> the means of their states (texts, dim)."""
        if len(rows) == 1:  # which NumPy is sooner done with
            (ids,) = rows
            return torch.from_numpy(self._rows.take(ids, 0).sum(0, keepdims=True) / np.float32(len(ids)))
        torch.set_num_threads(1)  # more of them wait for each other longer than they work
        starts = np.cumsum([0, *map(len, rows[:-1])])
        return embedding_bag(
            torch.from_numpy(np.concatenate(rows)), self._table, torch.from_numpy(starts), mode="mean"
        )
