"""One trial before an encoder is served: whether a text has one vector, alone, beside others, again, at any length.

A text's vector is told by what poolings need of its token states: their mean, the first and the last. Each is brought
to length one before the largest absolute difference of a component is taken. Where an encoder gives numbers that
count themselves, as scores do, a difference is absolute for small ones and relative for large ones (arsinh).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from service.arrays import Floats, Ids
from service.checkpoint.weights import count, not_finite
from service.config import RuntimeConfig
from service.encoder.loading import Source
from service.encoder.probe import not_finite_states
from service.encoder.runtimes.base import Runtime, Unfit
from service.encoder.runtimes.machine import instructions
from service.encoder.samples import UNBOUNDED, Samples, affordable
from service.encoder.shapes import EqualLengths, Shapes
from service.encoder.tokenizer import pad
from service.errors import CheckpointError, brief

_TRIAL: Final = 3
"""Version of the trial; increase it when it comes to refuse more, so that what is cached is tried again."""
_FILE: Final = "trial.json"
BOUNDS: Final = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2, "int8": 2e-2}
"""Largest difference that rounding explains, by precision; what is not known here is held to bf16's. all-MiniLM-L6-v2
has 2e-7 in fp32, 3e-3 in bf16 and nothing in int8."""
_LENGTHS: Final = (7, 18, 33, 129)
"""Tokens of the tried texts, beside the shortest and the longest."""
_TOGETHER: Final = (8, 33)
"""Rows of equal length, and their length, in the pass that shows whether texts beside a text change it."""
_MEMORY: Final = 2**29
"""Most bytes of the pass over the longest text and a short one, by the runtime's footprint."""


@dataclass(frozen=True)
class Trial:
    """What a trial found: largest differences from a text alone, on vectors of length one.

    Args:
        checked_to: tokens of the longest text that was run.
        limit: most tokens of a text, as the encoder's config has it; None where it has no limit.
        bound: the difference that is allowed.
        wide: of a text alone in a pass that takes all cores.
        together: beside other texts of the same length.
        padded: beside longer texts.
        again: after other texts, long and short.
        equal_lengths: whether passes are of equal lengths, since padding changes a text, or a pass leaves a state.
        not_finite: file and name of weights that hold NaN or infinity, where only the texts that need them fail.
    """

    checked_to: int
    limit: int | None
    bound: float
    wide: float
    together: float
    padded: float
    again: float
    equal_lengths: bool
    not_finite: str | None

    def shapes(self, runtime: Runtime, max_batch_tokens: int, longest: int) -> Shapes:
        """Return the shapes of passes in which a text has one vector; arguments as for `Runtime.shapes`."""
        return EqualLengths() if self.equal_lengths else runtime.shapes(max_batch_tokens, longest)

    def __str__(self) -> str:
        figures = {"alone": self.wide, "together": self.together, "padded": self.padded, "again": self.again}
        shown = ", ".join(f"{name} {value:.0e}" for name, value in figures.items())
        of = f" of {self.limit}" if self.limit else ""
        return (
            f"largest differences {shown} where {self.bound:.0e} is allowed, checked to {self.checked_to}{of} tokens"
        )


def tried(source: Source, runtime: Runtime, config: RuntimeConfig) -> Trial:
    """Try an encoder on the runtime that it will be served with, or return what an earlier trial of the same found.

    Raises:
        Unfit: its vectors cannot be trusted on this runtime.
        CheckpointError: nor may another one take its place.
    """
    limit = source.anatomy.positions
    tokenizer = source.tokenizer
    key = {
        "trial": _TRIAL,
        "runtime": [runtime.backend, runtime.version],
        "precision": runtime.precision,
        "agreement": asdict(runtime.agreement) if runtime.agreement else None,  # int8 depends on its calibration
        "instructions": instructions(config),
        "streams": runtime.streams,
        "limit": limit,
        "tokenizer": [tokenizer.fingerprint(), tokenizer.pad_id, tokenizer.vocab_size],
    }

    def build(folder: Path) -> None:
        # A row of the table of tokens is read and not multiplied, and where results are states, as wide as they.
        table = tokenizer.vocab_size * runtime.dim if source.task.per_token else 0
        longest = _longest(runtime, limit or UNBOUNDED, count(source.checkpoint.weight_files()) - table)
        with ThreadPoolExecutor(1) as thread:  # what a runtime keeps for a thread ends with it
            trial = thread.submit(_try, source, runtime, longest).result()
        (folder / _FILE).write_text(json.dumps(asdict(trial)))

    try:
        folder = source.artifact("trial", key, build)
    except CheckpointError as error:
        if runtime.precision == "int8":
            raise
        raise Unfit(error, f"{runtime.backend} failed its trial ({error})") from None
    return Trial(**json.loads((folder / _FILE).read_text()))


def _longest(runtime: Runtime, limit: int, weights: int) -> int:
    """Return how many tokens the longest text has: the limit where time and memory allow."""
    memory = bisect_right(range(1, limit + 1), _MEMORY, key=lambda width: runtime.footprint.of_pass(2, width))
    return min(limit, max(min(affordable(weights), memory), _TOGETHER[1]))


def _try(source: Source, runtime: Runtime, longest: int) -> Trial:
    """Run the texts; see `tried`."""
    runtime.prepare_thread()
    passes = _Passes(source, runtime)
    samples = Samples(source.tokenizer)
    samples.keep(passes.give_numbers(samples.each()))
    *short, long = texts = samples.texts(_LENGTHS, longest)
    bound = BOUNDS.get(runtime.precision, BOUNDS["bf16"])

    alone = [passes.one(text) for text in texts]
    wide = max(_apart(passes.one(text, wide=True), first) for text, first in zip(texts, alone, strict=True))
    equals = samples.rows(*(min(most, longest) for most in _TOGETHER))
    together = _apart(passes.together(equals)[0], passes.one(equals[0]))
    beside = [*passes.together(short[::-1])[::-1], *passes.together(short[::-1], wide=True)[::-1]]
    padded = max(map(_apart, beside, chain(alone[:-1], alone[:-1])))
    padded = max(padded, *map(_apart, passes.together([long, short[0]]), (alone[-1], alone[0])))
    again = max(
        _apart(passes.one(text, wide=turn % 2 == 1), first)
        for turn, (text, first) in enumerate(zip([*short, long, *short], [*alone, *alone[:-1]], strict=True))
    )

    name = source.checkpoint.name
    for difference, fault in (
        (wide, "a text has another vector in a pass that takes all cores"),
        (again, "a text has another vector after other texts"),
        (together, "a text has another vector beside texts of the same length"),
    ):
        if not difference <= bound:
            other = "try runtime.backend: torch" if runtime.backend != "torch" else "choose another model"
            remedy = other if runtime.precision == "fp32" else "set runtime.precision to fp32"
            raise CheckpointError(
                f"{name}: on {runtime.backend} in {runtime.precision}, {fault}: they are {difference:.1e} apart, and "
                f"{bound:.0e} is allowed. To serve it, {remedy}."
            )
    broken = not_finite(
        source.checkpoint.weight_files(),
        source.checkpoint.config,
        source.tokenizer.vocab_size,
        heads=not source.task.per_token,
    )
    return Trial(
        checked_to=len(long),
        limit=source.anatomy.positions,
        bound=bound,
        wide=wide,
        together=together,
        padded=padded,
        again=again,
        equal_lengths=runtime.stateful or not padded <= bound,
        not_finite=f"{broken[0].name}: {broken[1]}" if broken else None,
    )


class _Passes:
    """Passes through a runtime, refused where they fail or give no state a token.

    Each returns for a text the mean, the first and the last of its states, (3, dim), each of length one; or what else
    the encoder gives for it, (1, dim).
    """

    def __init__(self, source: Source, runtime: Runtime) -> None:
        self._source = source
        self._runtime = runtime
        self._passed = 0
        """Tokens of the longest text that a pass was made of."""

    def one(self, text: Ids, *, wide: bool = False) -> Floats:
        """Run a text alone."""
        return self.together([text], wide=wide)[0]

    def together(self, texts: Sequence[Ids], *, wide: bool = False) -> list[Floats]:
        """Run texts in one pass."""
        states = self._states(texts, wide=wide)
        self._passed = max(self._passed, states.shape[1])
        found = [self._compared(states[row, : len(text)]) for row, text in enumerate(texts)]
        if not all(np.isfinite(vectors).all() for vectors in found):
            raise self._broken(f"{self._source.checkpoint.name} at {states.shape[1]} tokens")
        return found

    def _broken(self, what: str) -> CheckpointError:
        source = self._source
        return not_finite_states(source.checkpoint, what, self._runtime.precision, source.task)

    def give_numbers(self, texts: Sequence[Ids]) -> NDArray[np.bool_]:
        """Return for texts of equal length whether their states are finite, where some are, (texts,)."""
        found: NDArray[np.bool_] = np.asarray(np.isfinite(self._states(texts)).all((1, 2)))
        if not found.any():
            raise self._broken(self._source.checkpoint.name)
        return found

    def _states(self, texts: Sequence[Ids], *, wide: bool = False) -> Floats:
        ids, mask = pad(texts, self._source.tokenizer.pad_id)
        try:
            with torch.inference_mode():
                states: Floats = self._runtime.states(ids, mask, wide=wide).float().numpy()
        except Exception as error:  # runtimes raise many kinds
            raise CheckpointError(self._failed(ids.shape[1], brief(error, 200))) from None
        wanted = (len(ids), ids.shape[1] if self._source.task.per_token else 1, self._runtime.dim)
        if states.shape != wanted:
            raise CheckpointError(
                f"{self._source.checkpoint.name}: states of {len(ids)} x {ids.shape[1]} tokens have the shape "
                f"{states.shape} and should have {wanted}. Choose another model, or another runtime.backend."
            )
        return states

    def _compared(self, rows: Floats) -> Floats:
        """Return the numbers by which results are told apart, of the rows of one text."""
        return _vectors(rows) if self._source.task.directional else np.arcsinh(rows)

    def _failed(self, width: int, reason: str) -> str:
        checkpoint = self._source.checkpoint
        if not self._passed:
            return f"{checkpoint.name}: fails on a text of {width} tokens ({reason}). Choose another model."
        return (
            f"{checkpoint.name}: fails on a text of {width} tokens ({reason}), and not on one of {self._passed}: it "
            f"has fewer positions than config.json declares. Correct that, or get the folder anew."
        )


def _vectors(states: Floats) -> Floats:
    found = np.stack([states.mean(0), states[0], states[-1]])
    vectors: Floats = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return vectors


def _apart(left: Floats, right: Floats) -> float:
    return float(np.abs(left - right).max())
