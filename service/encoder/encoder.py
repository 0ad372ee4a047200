"""An encoder that is loaded: its checkpoint, tokenizer, runtime and queue. Models that name it share it."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final

import numpy as np
from torch import Tensor

from service.checkpoint import Checkpoint
from service.config import BatchingConfig, RuntimeConfig
from service.encoder.batcher import Batcher
from service.encoder.direct import DirectBatcher
from service.encoder.loading import Source
from service.encoder.memory import StateBudget
from service.encoder.rounding import agreement_of
from service.encoder.runtimes.base import MeansRuntime, Runtime
from service.encoder.runtimes.registry import load_runtime
from service.encoder.task import TOKEN_STATES, Task
from service.encoder.trial import tried
from service.errors import CheckpointError, ConfigError, brief

logger = logging.getLogger(__name__)


_LONGEST: Final = 131_072
"""Most tokens of a text for an encoder that has no limit of its own."""
_STATE_BYTES: Final = 2**30
_WARM_WIDTH: Final = 32
_WARM_TOKENS: Final = 256
"""Tokens of a stream's batch that warms up: enough for the speed of full ones, and quick with a large model."""
_ORDINARY: Final = 512
"""Tokens of a row in the passes that `max_state_bytes: auto` always has room for, on all streams at once."""


class Encoder:
    """Load a checkpoint and start the queue over it.

    Raises:
        ConfigError: this machine or this installation cannot do what the config asks for.
        CheckpointError: tokenizer or weights cannot be used, or the vectors cannot be trusted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        runtime: RuntimeConfig,
        batching: BatchingConfig,
        *,
        trust_remote_code: bool = False,
        parse_special_tokens: bool = False,
        task: Task = TOKEN_STATES,
    ) -> None:
        runtime = _measured(runtime, task)
        source = Source(
            checkpoint,
            runtime.cache,
            trust_remote_code=trust_remote_code,
            parse_special_tokens=parse_special_tokens,
            task=task,
        )
        self._source = source
        self.checkpoint = checkpoint
        self.tokenizer = source.tokenizer
        self.fingerprint = source.fingerprint
        self.runtime, self.runtime_reason, (self.trial, self.agreement) = load_runtime(
            source, runtime, lambda loaded: (tried(source, loaded, runtime), agreement_of(source, loaded, runtime))
        )
        self.dim = self.runtime.dim
        self.anatomy = replace(source.anatomy, dim=self.dim)
        logger.info(
            "%s runs on %s %s with %d streams: %s",
            *(checkpoint.name, self.runtime.backend, self.runtime.precision, self.runtime.streams),
            self.runtime_reason,
        )
        logger.info("%s was tried: %s", checkpoint.name, self.trial)
        if self.trial.not_finite:
            logger.warning(
                "%s: NaN or infinity in %s; texts that need it fail. Get the file anew.",
                *(checkpoint.name, self.trial.not_finite),
            )
        if self.trial.equal_lengths:
            logger.warning("%s reads padding, so only texts of equal length share a pass", checkpoint.name)
        most = self.runtime.footprint.most_tokens(batching.max_batch_tokens)
        self.max_state_bytes = _state_bytes(batching, self.runtime, most)
        """Most memory of the passes under way, and again of states that requests hold on to."""
        self._max_batch_tokens = most
        self._states = StateBudget(self.max_state_bytes)
        limits: dict[str, Any] = {
            "shapes": self.trial.shapes(self.runtime, most, self.anatomy.positions or _LONGEST),
            "pad_id": self.tokenizer.pad_id,
            "max_batch_tokens": most,
            "max_queued_tokens": batching.max_queued_tokens,
            "max_queued_seconds": batching.max_queued_seconds,
            "max_state_bytes": self.max_state_bytes,
        }
        self.batcher = (
            DirectBatcher(self.runtime, **limits)
            if isinstance(self.runtime, MeansRuntime)
            else Batcher(self.runtime, **limits)
        )

    def hold_states(self, tokens: int) -> AbstractAsyncContextManager[None]:
        """Wait for memory for the states of so many tokens, and hold it within the `async with` block."""
        return self._states.hold(tokens * self.dim * 4)

    @property
    def depth(self) -> int | None:
        """How many transformer layers it gives the states of; None: those of the last layer alone."""
        return None if self.checkpoint.layerless else self.runtime.depth

    def carry_layers(self) -> int:
        """Make ready to give the states of other layers than the last, and return how many there are; takes seconds.

        Raises:
            ConfigError, CheckpointError: the runtime or the architecture cannot.
        """
        if reason := self.checkpoint.layerless:
            raise CheckpointError(f"{self.checkpoint.name}: {reason}. Leave `layers` out.")
        if self.runtime.depth is None:
            self.runtime.carry_layers(self._source)
        assert self.runtime.depth is not None
        return self.runtime.depth

    def warm_up(self) -> None:
        """Run a small batch on each stream, so that threads and memory are there, and its speed is known."""
        width = min(_WARM_WIDTH, self.anatomy.positions or _LONGEST)
        rows = self.runtime.streams * max(min(_WARM_TOKENS, self._max_batch_tokens) // width, 1)
        ids = [np.full(width, self.tokenizer.pad_id, np.int64)] * rows
        try:
            self.batcher.submit(ids, _nothing).result()
            self.batcher.forget_rate()  # the first passes compile and allocate
            self.batcher.submit(ids, _nothing).result()
        except Exception as error:  # requests will say so to who sent them
            logger.warning("%s cannot be warmed up: %s", self.checkpoint.name, brief(error, 300))

    def close(self) -> None:
        """Stop the queue."""
        self.batcher.close()


def _nothing(states: Tensor, mask: Tensor, ids: Tensor) -> list[None]:
    return [None] * len(mask)


def _measured(runtime: RuntimeConfig, task: Task) -> RuntimeConfig:
    """Return the config with no precision by itself that is not measured for what a task gives.

    How far int8 and bf16 are from fp32 is told by vectors that are pooled of token states.
    """
    if task.per_token:
        return runtime
    if runtime.precision == "int8":
        raise ConfigError(
            f"runtime.precision: int8 is measured by vectors, and not for {task.result}. Set it to auto, fp32 or "
            "bf16, or serve the model in a deployment of its own."
        )
    return runtime.model_copy(update={"precision": "fp32"}) if runtime.precision == "auto" else runtime


def _state_bytes(batching: BatchingConfig, runtime: Runtime, most: int) -> int:
    """Return the memory that passes may take, of so many tokens at most."""
    if batching.max_state_bytes != "auto":
        return batching.max_state_bytes
    width = min(most, _ORDINARY)
    return max(_STATE_BYTES, runtime.streams * runtime.footprint.of_pass(most // width, width))
