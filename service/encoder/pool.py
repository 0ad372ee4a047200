"""The encoders of a deployment's models, each once, and what is done with all of them."""

from __future__ import annotations

import logging
from typing import Any

from service.checkpoint import Checkpoint
from service.config import BatchingConfig, Config
from service.encoder.encoder import Encoder
from service.encoder.task import TOKEN_STATES, Task

logger = logging.getLogger(__name__)


class Encoders(dict[tuple[Any, ...], Encoder]):
    """Loaded encoders, by all that tells one from another: the folder, what is computed, and loading options."""

    def load(
        self,
        checkpoint: Checkpoint,
        config: Config,
        task: Task = TOKEN_STATES,
        *,
        trust_remote_code: bool = False,
        parse_special_tokens: bool = False,
    ) -> Encoder:
        """Return the encoder of a checkpoint, one that was loaded before where there is; errors as of `Encoder`."""
        options = {"trust_remote_code": trust_remote_code, "parse_special_tokens": parse_special_tokens}
        of_tokens = tuple(module.folder.resolve() for module in checkpoint.of_tokens)
        folders = checkpoint.transformer.resolve(), of_tokens
        key = (*task.key.values(), *folders, checkpoint.lower_case, *options.values())
        if key not in self:
            logger.info("loading %s from %s", checkpoint.name, checkpoint.transformer)
            self[key] = Encoder(checkpoint, config.runtime, config.batching, task=task, **options)
        return self[key]

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
