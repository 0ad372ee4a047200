"""The texts an int8 encoder is fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from service.encoder.quantization import batches, calibration_texts
from service.encoder.quantization.calibration import LEAST_TEXTS
from service.errors import ConfigError


def test_packaged_texts_are_many_and_varied():
    fitting, held_out = calibration_texts(None)
    texts = [*fitting, *held_out]
    assert len(fitting) >= 300
    assert len(held_out) >= 50
    assert len(set(texts)) == len(texts)
    for part in (fitting, held_out):
        words = sorted(len(text.split()) for text in part)
        assert words[0] <= 3
        assert words[-1] >= 150
        assert any(not text.isascii() for text in part)
        assert any("?" in text for text in part)
        assert any(character.isdigit() for text in part for character in text)


def test_a_file_is_used_whole(tmp_path):
    path = tmp_path / "texts.txt"
    texts = [f"text {number}, schön" for number in range(100)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n  ".join([*texts, *texts]).encode())
    fitting, held_out = calibration_texts(path)
    assert sorted([*fitting, *held_out]) == sorted(texts)
    assert len(held_out) == 17


def test_of_a_long_file_texts_are_taken_from_all_over_it(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(map(str, range(50_000))))
    numbers = sorted(int(text) for part in calibration_texts(path) for text in part)
    assert len(numbers) == 1200
    assert numbers[0] == 0
    assert max(np.diff(numbers)) <= 42
    assert numbers[-1] >= 50_000 - 42


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "there is no such file"),
        (b"", "holds no text"),
        (b" \n\r\n\t\n", "holds no text"),
        (b"one\ntwo\nna\xefve\n", "line 3 is not valid UTF-8"),
        (b"the same\n" * 500, f"holds 1 different texts, and calibration takes at least {LEAST_TEXTS}"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, content, problem):
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        calibration_texts(path)
    message = str(caught.value)
    assert message.startswith(f"runtime.calibration: {path}: {problem}")
    assert "leave the key out to calibrate with the packaged texts" in message


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: .+ Name a file with a text a line"):
        calibration_texts(tmp_path)


def test_batches_hold_every_row_once_and_keep_to_their_tokens(generator):
    rows = [np.full(length, number) for number, length in enumerate(generator.integers(1, 40, 50))]
    rows.append(np.full(300, 50))  # longer than a batch may be: one of its own
    found = {}
    for ids, mask in batches(rows, pad_id=-1, most_tokens=100):
        assert ids.size <= 100 or len(ids) == 1
        assert mask.any(0).all()
        assert (ids[~mask] == -1).all()
        for row, real in zip(ids, mask, strict=True):
            found[row[0]] = row[real]
    assert sorted(found) == list(range(51))
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(found[number], row)
