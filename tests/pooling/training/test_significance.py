"""A verdict that knows noise from a difference."""

import numpy as np
import pytest

from pooling import build
from pooling.training import Settings, assess, fit

from .conftest import DIM


@pytest.mark.slow
def test_a_pooler_that_learned_something_is_worth_it_and_one_that_did_not_is_not(similarity):
    train, dev = similarity
    good, bad = build("attention", DIM), build("gated", DIM)
    fit(good, train, dev, Settings(epochs=20, batch_size=32, learning_rate=0.05))
    poolers = {"mean": build("mean", DIM), "max": build("max", DIM), "good": good, "bad": bad}
    found = {name: dev.outcomes(pooler) for name, pooler in poolers.items()}
    scores = {name: dev.score(pooler) for name, pooler in poolers.items()}
    others = {name: found[name] for name in ("mean", "max")}
    verdict = assess(dev, others | {"good": found["good"]}, "good")
    assert verdict.worth_it
    assert verdict.low < verdict.lead < verdict.high
    assert (verdict.score, verdict.other_score) == (scores["good"], max(scores["mean"], scores["max"]))
    verdict = assess(dev, {"mean": found["mean"], "bad": found["bad"]}, "bad")  # unfitted, so the mean
    assert not verdict.worth_it and verdict.lead == pytest.approx(0, abs=0.01)
    assert assess(dev, {"mean": found["mean"], "good": found["good"]}, "mean").high < 0


@pytest.mark.slow
def test_the_interval_is_the_same_every_time(similarity):
    _, dev = similarity
    found = {name: dev.outcomes(build(name, DIM)) for name in ("mean", "max")}
    first, second = (assess(dev, found, "max") for _ in range(2))
    assert first == second
    assert np.isfinite([first.low, first.high]).all()
