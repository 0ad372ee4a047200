"""The texts that an int8 encoder is calibrated on and measured with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Ids
from service.encoder.tokenizer import pad
from service.errors import ConfigError

Batch = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Token ids and mask, both (batch, time), padded at the right."""

LEAST_TEXTS: Final = 60
"""With fewer, the range of some channels is not seen, and too few texts are held out to measure with."""
_MOST_TEXTS: Final = 1200
"""More take longer and change nothing: a layer is fitted on about a thousand token states."""
_HELD_OUT: Final = 6
"""Every sixth text is held out."""


def calibration_texts(path: Path | None) -> tuple[list[str], list[str]]:
    """Return texts to calibrate with, and others to measure with.

    The packaged texts are short questions, sentences, headlines, and paragraphs from many fields, some of them code,
    numbers, or in other languages than English. Texts of the kind that will be served do better.

    Args:
        path: a UTF-8 file with a text a line; blank lines and repetitions are ignored, and a long file is sampled at
            even intervals. None for the packaged texts.

    Raises:
        ConfigError: the file cannot be used.
    """
    if path is None:
        texts = _distinct(files(__package__).joinpath("texts.txt").read_text(encoding="utf-8"))
    else:
        texts = _read(path)
    if len(texts) > _MOST_TEXTS:
        texts = [texts[place * len(texts) // _MOST_TEXTS] for place in range(_MOST_TEXTS)]
    held_out = texts[::_HELD_OUT]
    return [text for place, text in enumerate(texts) if place % _HELD_OUT], held_out


def batches(rows: Sequence[Ids], *, pad_id: int, most_tokens: int = 1024) -> Iterator[Batch]:
    """Cut tokenized texts into batches of similar length.

    Args:
        rows: token ids, one array a text.
        pad_id: the token id that fills a batch up.
        most_tokens: most tokens of a batch, padding included; a longer text is a batch of its own.
    """
    waiting = sorted(rows, key=len, reverse=True)
    while waiting:
        taken = waiting[: max(1, most_tokens // max(len(waiting[0]), 1))]
        del waiting[: len(taken)]
        yield pad(taken, pad_id)


def _read(path: Path) -> list[str]:
    at = f"runtime.calibration: {path}"
    remedy = "or leave the key out to calibrate with the packaged texts"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{at}: there is no such file. Name one with a text a line, {remedy}.") from None
    except OSError as error:
        raise ConfigError(
            f"{at}: cannot be read: {error.strerror}. Name a file with a text a line, {remedy}."
        ) from None
    try:
        texts = _distinct(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{at}: line {line} is not valid UTF-8. Save the file as UTF-8, {remedy}.") from None
    if not texts:
        raise ConfigError(f"{at}: holds no text. Give {LEAST_TEXTS} or more, one a line, {remedy}.")
    if len(texts) < LEAST_TEXTS:
        raise ConfigError(
            f"{at}: holds {len(texts)} different texts, and calibration takes at least {LEAST_TEXTS}, "
            f"better a few hundred. Add texts of the kind that will be served, one a line, {remedy}."
        )
    return texts


def _distinct(content: str) -> list[str]:
    return list(dict.fromkeys(filter(None, map(str.strip, content.split("\n")))))
