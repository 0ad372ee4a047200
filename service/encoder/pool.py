"""The encoders of a deployment's models, each once, and what is done with all of them."""

from __future__ import annotations

from typing import Any

from service.config import BatchingConfig
from service.encoder.encoder import Encoder


class Encoders(dict[tuple[Any, ...], Encoder]):
    """Loaded encoders, by folder and loading options."""

    @property
    def alive(self) -> bool:
        """Whether the queues of all run."""
        return all(encoder.batcher.alive for encoder in self.values())

    @property
    def pause(self) -> int:
        """After how many seconds a client that is refused may come back: when what waits in each queue is done."""
        return max((encoder.batcher.pause for encoder in self.values()), default=0)

    def require_room(self, body_bytes: int) -> None:
        """Refuse a request that no encoder would take, before its body is read.

        Args:
            body_bytes: the length of the body; 0 where it is not known.

        Raises:
            Unavailable: the queues are full.
        """
        refusals = [encoder.batcher.refusal(body_bytes) for encoder in self.values()]
        if refusals and refusals[0] is not None and all(refusals):
            raise refusals[0]

    def warm_up(self) -> None:
        """Run a small batch through each."""
        for encoder in self.values():
            encoder.warm_up()

    def limit(self, batching: BatchingConfig) -> None:
        """Change what may wait in the queue of each."""
        for encoder in self.values():
            encoder.batcher.limit(batching.max_queued_tokens, batching.max_queued_seconds)

    def close(self) -> None:
        """Stop the queues of all."""
        for encoder in self.values():
            encoder.close()
