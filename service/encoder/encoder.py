"""An encoder that is loaded: its checkpoint, tokenizer, runtime and queue. Models that name it share it."""

from __future__ import annotations

import logging

from service.checkpoint import Checkpoint
from service.config import BatchingConfig, RuntimeConfig
from service.encoder.batcher import Batcher
from service.encoder.loading import Source
from service.encoder.runtimes.registry import load_runtime

logger = logging.getLogger(__name__)


class Encoder:
    """Load a checkpoint and start the queue over it.

    Raises:
        ConfigError: this machine or this installation cannot do what the config asks for.
        CheckpointError: tokenizer or weights cannot be used.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        runtime: RuntimeConfig,
        batching: BatchingConfig,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        source = Source(checkpoint, runtime.cache, trust_remote_code=trust_remote_code)
        self.checkpoint = checkpoint
        self.tokenizer = source.tokenizer
        self.fingerprint = source.fingerprint
        self.runtime, self.runtime_reason = load_runtime(source, runtime)
        self.agreement = self.runtime.agreement
        self.dim = self.runtime.dim
        logger.info(
            "%s runs on %s %s with %d streams: %s",
            *(checkpoint.name, self.runtime.backend, self.runtime.precision, self.runtime.streams),
            self.runtime_reason,
        )
        self.batcher = Batcher(
            self.runtime,
            pad_id=self.tokenizer.pad_id,
            max_batch_tokens=batching.max_batch_tokens,
            max_queued_tokens=batching.max_queued_tokens,
        )

    def close(self) -> None:
        """Stop the queue."""
        self.batcher.close()
