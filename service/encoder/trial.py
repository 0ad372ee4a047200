"""One trial before an encoder is served: whether a text has one vector, alone, beside others, again, at any length.

A text's vector is told by what poolings need of its token states: their mean, the first and the last. Each is brought
to length one before the largest absolute difference of a component is taken.
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

from service.arrays import Floats, Ids
from service.checkpoint.weights import count
from service.config import RuntimeConfig
from service.encoder.loading import Source
from service.encoder.probe import not_finite_states
from service.encoder.runtimes.base import Runtime
from service.encoder.runtimes.machine import instructions
from service.encoder.samples import UNBOUNDED, affordable, draw
from service.encoder.shapes import EqualLengths, Shapes
from service.encoder.tokenizer import Tokenizer, pad
from service.errors import CheckpointError, brief

_TRIAL: Final = 1
"""Version of the trial; increase it when it comes to refuse more, so that what is cached is tried again."""
_FILE: Final = "trial.json"
BOUNDS: Final = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 3e-2, "int8": 5e-2}
"""Largest difference that rounding explains, by precision; what is not known here is held to bf16's."""
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
        equal_lengths: whether passes are of equal lengths, since padding changes a text.
    """

    checked_to: int
    limit: int | None
    bound: float
    wide: float
    together: float
    padded: float
    again: float
    equal_lengths: bool

    def shapes(self, runtime: Runtime, max_batch_tokens: int, longest: int) -> Shapes:
        """Return the shapes of passes in which a text has one vector; arguments as for `Runtime.shapes`."""
        return EqualLengths() if self.equal_lengths else runtime.shapes(max_batch_tokens, longest)

    def __str__(self) -> str:
        of = f" of {self.limit}" if self.limit else ""
        figures = (
            f"alone {self.wide:.0e}, together {self.together:.0e}, padded {self.padded:.0e}, again {self.again:.0e}"
        )
        return (
            f"largest differences: {figures} ({self.bound:.0e} is allowed), checked to {self.checked_to}{of} tokens"
        )


def tried(source: Source, runtime: Runtime, config: RuntimeConfig) -> Trial:
    """Try an encoder on the runtime that it will be served with, or return what an earlier trial of the same found.

    Raises:
        CheckpointError: its vectors cannot be trusted, why, and the remedy.
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
        table = tokenizer.vocab_size * runtime.dim
        longest = _longest(runtime, limit or UNBOUNDED, count(source.checkpoint.weight_files()) - table)
        with ThreadPoolExecutor(1) as thread:  # what a runtime keeps for a thread ends with it
            trial = thread.submit(_try, source, runtime, longest).result()
        (folder / _FILE).write_text(json.dumps(asdict(trial)))

    folder = source.artifact("trial", key, build)
    return Trial(**json.loads((folder / _FILE).read_text()))


def _longest(runtime: Runtime, limit: int, weights: int) -> int:
    """Return how many tokens the longest text has: the limit where time and memory allow."""
    memory = bisect_right(range(1, limit + 1), _MEMORY, key=lambda width: runtime.footprint.of_pass(2, width))
    return min(limit, max(min(affordable(weights), memory), _TOGETHER[1]))


def _try(source: Source, runtime: Runtime, longest: int) -> Trial:
    """Run the texts; see `tried`."""
    runtime.prepare_thread()
    passes = _Passes(source, runtime)
    *short, long = texts = _texts(source.tokenizer, longest)
    bound = BOUNDS.get(runtime.precision, BOUNDS["bf16"])

    alone = [passes.one(text) for text in texts]
    wide = max(_apart(passes.one(text, wide=True), first) for text, first in zip(texts, alone, strict=True))
    equals = _rows(source.tokenizer, *(min(most, longest) for most in _TOGETHER))
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
    return Trial(
        checked_to=len(long),
        limit=source.anatomy.positions,
        bound=bound,
        wide=wide,
        together=together,
        padded=padded,
        again=again,
        equal_lengths=not padded <= bound,
    )


class _Passes:
    """Passes through a runtime, refused where they fail or give no state a token.

    Each returns for a text the mean, the first and the last of its states, (3, dim), each of length one.
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
        ids, mask = pad(texts, self._source.tokenizer.pad_id)
        checkpoint, width = self._source.checkpoint, ids.shape[1]
        try:
            with torch.inference_mode():
                states = self._runtime.states(ids, mask, wide=wide).float().numpy()
        except Exception as error:  # runtimes raise many kinds
            raise CheckpointError(self._failed(width, brief(error, 200))) from None
        if states.shape != (*ids.shape, self._runtime.dim):
            raise CheckpointError(
                f"{checkpoint.name}: states of {len(ids)} x {width} tokens have the shape {states.shape} and should "
                f"have {(*ids.shape, self._runtime.dim)}. Choose another model, or another runtime.backend."
            )
        self._passed = max(self._passed, width)
        found = [_vectors(states[row, : len(text)]) for row, text in enumerate(texts)]
        if not all(np.isfinite(vectors).all() for vectors in found):
            raise not_finite_states(checkpoint, f"{checkpoint.name} at {width} tokens")
        return found

    def _failed(self, width: int, reason: str) -> str:
        checkpoint = self._source.checkpoint
        if not self._passed:
            return f"{checkpoint.name}: fails on a text of {width} tokens ({reason}). Choose another model."
        return (
            f"{checkpoint.name}: fails on a text of {width} tokens ({reason}), and not on one of {self._passed}: it "
            f"has fewer positions than config.json declares. Correct that, or get the folder anew."
        )


def _texts(tokenizer: Tokenizer, longest: int) -> list[Ids]:
    """Return texts from the shortest to the longest, framed as texts are."""
    shortest = min(tokenizer.num_special + 1, longest)
    lengths = sorted({shortest, longest, *(length for length in _LENGTHS if shortest < length < longest)})
    return [_rows(tokenizer, 1, length)[0] for length in (lengths if len(lengths) > 1 else lengths * 2)]


def _rows(tokenizer: Tokenizer, rows: int, length: int) -> list[Ids]:
    """Return different texts of the same length."""
    special = {*tokenizer.spec.special_ids, tokenizer.pad_id}
    room = max(length - tokenizer.num_special, 0)
    drawn = draw(tokenizer.vocab_size, (rows, room), avoid=special, seed=length)
    frame = tokenizer.spec.prefix, tokenizer.spec.suffix
    return [np.array([*frame[0], *row, *frame[1]], np.int64)[:length] for row in drawn]


def _vectors(states: Floats) -> Floats:
    found = np.stack([states.mean(0), states[0], states[-1]])
    vectors: Floats = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return vectors


def _apart(left: Floats, right: Floats) -> float:
    return float(np.abs(left - right).max())
