"""The interface of a runtime: what loads an encoder and computes its token states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pooling.layers import LAST
from service.arrays import Ids
from service.config import RuntimeConfig, runtimes
from service.encoder.loading import Source
from service.encoder.memory import Footprint
from service.encoder.quantization import Agreement
from service.encoder.shapes import AnyShape, Shapes
from service.errors import CheckpointError, ServiceError


class Unfit(Exception):
    """A runtime cannot load an encoder as configured, though another one may.

    Args:
        error: what the user gets where no other runtime may take its place.
        reason: why, in a sentence, for `/info` where another one does.
    """

    def __init__(self, error: ServiceError, reason: str) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason


class Runtime(ABC):
    """An encoder that is loaded.

    `streams` is how many batches it computes best at once. One more may come beside them, from a thread of its
    own, for a small request that should not wait for a stream. `agreement` is, for int8, how near its vectors are
    to those of float32. `footprint` estimates the memory of a pass. A `stateful` one leaves something behind in a
    pass, such as a recurrent state or the frequencies for its width: it computes one pass at a time, and its texts
    share one only with texts of their length.
    """

    backend: ClassVar[str]
    """What `runtime.backend` calls it."""
    rank: ClassVar[int]
    """Under `backend: auto`, runtimes are tried from the highest rank down."""
    merit: ClassVar[str]
    """Why `auto` takes it where it has the highest rank, in a sentence."""

    precision: str
    streams: int
    dim: int
    footprint: Footprint = Footprint.of({}, fused_attention=True)
    agreement: Agreement | None = None
    stateful: bool = False
    depth: int | None = None
    """How many transformer layers it gives the states of; None: those of the last layer alone."""

    @property
    def version(self) -> str:
        """The version of what computes, to which a trial holds: of the package that offers the runtime."""
        offered = runtimes().get(self.backend)
        return offered.dist.version if offered and offered.dist else ""

    @classmethod
    @abstractmethod
    def load(cls, source: Source, config: RuntimeConfig) -> Self:
        """Load an encoder.

        Raises:
            Unfit: this installation, this machine or the encoder's architecture is not for this runtime.
            ConfigError, CheckpointError: no runtime could do it.
        """

    def shapes(self, max_batch_tokens: int, longest: int) -> Shapes:
        """Return the shapes that passes should have: any, unless the runtime compiles each new one.

        Args:
            max_batch_tokens: most tokens of one pass with several rows, padding included.
            longest: most tokens of a row.
        """
        return AnyShape()

    def prepare_thread(self) -> None:
        """Prepare the calling thread; each thread does so once, before its first `states`."""
        return

    @abstractmethod
    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim).

        For an encoder with another task it is what that gives: (batch, rows, dim).

        A `wide` pass takes all cores, so that its few tokens are soon done; any other takes its stream's share.
        """

    def carry_layers(self, source: Source) -> None:
        """Make ready to give the states of other layers than the last, and set `depth`; may take seconds.

        Raises:
            ConfigError, CheckpointError: it cannot, and what can.
        """
        if self.depth is None:
            raise CheckpointError(
                f"{source.checkpoint.name}: on {self.backend} it gives no states but those of its last layer. Set "
                "layers: last, or choose another runtime.backend or another model."
            )

    def by_layer(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], wanted: Collection[int], *, wide: bool = False
    ) -> Mapping[int, Tensor]:
        """Return the states of the layers that are wanted, by layer, each (batch, time, dim); arguments as `states`.

        Args:
            wanted: numbers from 0, the embeddings, to `depth`; -1 is the last one too.
        """
        if set(wanted) == set(LAST.used):
            return dict.fromkeys(wanted, self.states(ids, mask, wide=wide))
        return self.layers(ids, mask, wanted, wide=wide)

    def layers(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], wanted: Collection[int], *, wide: bool = False
    ) -> Mapping[int, Tensor]:
        """As `by_layer`, where other layers than the last are wanted; the last one's states are those of `states`."""
        raise NotImplementedError


class MeansRuntime(Runtime):
    """A runtime that makes the means of states in less time than it takes to queue a request for them."""

    @abstractmethod
    def means(self, rows: Sequence[Ids]) -> Tensor:
        """Token ids of texts, one array a text, none empty -> the means of their states (texts, dim)."""
