"""What is measured between float32's vectors and int8's, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from service.encoder.quantization import LEAST, Agreement, measure
from service.errors import CheckpointError

GOOD = Agreement(texts=60, mean_cosine=0.99, least_cosine=0.95, rank_correlation=0.99, neighbours=0.9)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_equal_vectors_agree(generator):
    same = unit(generator.normal(size=(40, 16)))
    agreement = measure(same, same)
    assert agreement.texts == 40
    np.testing.assert_allclose(dataclasses.astuple(agreement)[1:], 1, atol=1e-6)
    agreement.check("x", "int8")


def test_measures_are_what_they_say(generator):
    reference = generator.normal(size=(30, 8))
    candidate = unit(reference + 0.4 * generator.normal(size=reference.shape))
    reference = unit(reference)
    agreement = measure(reference, candidate)
    cosines = [float(a @ b) for a, b in zip(reference, candidate, strict=True)]
    assert agreement.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert agreement.least_cosine == pytest.approx(min(cosines), abs=1e-6)
    pairs = [(i, j) for i in range(30) for j in range(i)]
    ranks = spearmanr(*([float(rows[i] @ rows[j]) for i, j in pairs] for rows in (reference, candidate)))
    assert agreement.rank_correlation == pytest.approx(ranks.statistic, abs=1e-5)
    kept = []
    for text in range(30):
        near = [
            set(sorted((j for j in range(30) if j != text), key=lambda j: -rows[text] @ rows[j])[:5])
            for rows in (reference, candidate)
        ]
        kept.append(len(near[0] & near[1]) / 5)
    assert agreement.neighbours == pytest.approx(np.mean(kept))


def test_vectors_turned_as_a_whole_are_refused(generator):
    """Among themselves they rank as before; beside vectors that float32 made they do not."""
    reference = unit(generator.normal(size=(40, 16)))
    turn, _ = np.linalg.qr(generator.normal(size=(16, 16)))
    agreement = measure(reference, (reference @ turn).astype(np.float32))
    assert agreement.rank_correlation > 0.999
    with pytest.raises(CheckpointError, match="mean cosine"):
        agreement.check("x", "int8")


def test_what_cannot_be_compared(generator):
    rows = unit(generator.normal(size=(5, 4)))
    for candidate in (rows[:4], rows[:, :3]):
        with pytest.raises(ValueError, match="cannot be compared"):
            measure(rows, candidate)
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(rows[:2], rows[:2])


@pytest.mark.parametrize(("field", "label", "least"), LEAST)
@pytest.mark.parametrize("bad", [0.5, float("nan")])
def test_each_measure_is_checked(field, label, least, bad):
    GOOD.check("x", "int8")
    with pytest.raises(CheckpointError) as caught:
        dataclasses.replace(GOOD, **{field: bad}).check("some/encoder", "int8")
    assert str(caught.value) == (
        f"some/encoder: int8 changes its vectors too much, measured on 60 texts: {label} is {bad:.3f} and must be "
        f"{least:.3f}. Set runtime.precision to fp32, or name texts of the kind that will be served in "
        "runtime.calibration."
    )
