"""Fitting: it learns what there is to learn, starts as the mean, ends at its best, and is the same every time."""

import copy
from dataclasses import replace

import pytest
import torch

from pooling import build, load
from pooling.learned import P_RANGE
from pooling.training import Settings, Split, TrainingError, averaged, fit

from .conftest import DIM

FITTED = (
    *("attention", "gated", "multihead_attention(heads=2)", "multihead_attention(heads=2, combine=mean)"),
    *("multihead_attention(heads=2, split_heads=true)", "gem(p=2)", "gem(p=1, per_dim=true)"),
    *("multihead_attention(heads=2, split_heads=true, projection=true)", "attention + mean"),
)
FAST = Settings(epochs=4, batch_size=32, learning_rate=0.05)


def fitted(spec, train, dev, settings=FAST, **options):
    pooler, epochs = build(spec, DIM), []
    best = fit(pooler, train, dev, settings, on_epoch=epochs.append, **options)
    return pooler, best, epochs


@pytest.mark.parametrize("spec", FITTED)
def test_every_learned_pooling_is_better_after_fitting(spec, similarity, tmp_path):
    train, dev = similarity
    pooler, best, epochs = fitted(spec, train, dev)
    assert [epoch.number for epoch in epochs] == list(range(len(epochs)))
    assert best.score == max(epoch.score for epoch in epochs) > epochs[0].score
    assert dev.score(pooler) == best.score
    assert pooler.trained
    pooler.save(tmp_path / "saved")
    assert dev.score(load(tmp_path / "saved")) == best.score


@pytest.mark.parametrize("spec", ["attention", "gated", FITTED[4], FITTED[7], "gem(p=1)"])
def test_it_begins_as_the_mean(spec, similarity):
    train, dev = similarity
    _, _, epochs = fitted(spec, train, dev, replace(FAST, epochs=1))
    assert epochs[0].score == pytest.approx(dev.score(build("mean", DIM)), abs=0.01)


def test_attention_finds_the_token_that_carries_the_meaning(similarity):
    train, dev = similarity
    pooler, best, _ = fitted("attention", train, dev, replace(FAST, epochs=20))
    assert best.score > dev.score(build("mean", DIM)) + 10
    tokens, mask = dev.states.batch(torch.arange(40).numpy())
    marked = tokens[:, :, -1].argmax(1)
    assert (pooler.weights(tokens, mask).argmax(1) == marked).float().mean() > 0.9


def test_the_same_seed_gives_the_same_parameters_and_another_does_not(similarity):
    train, dev = similarity
    first, second, other = (fitted("attention", train, dev, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.query, second.query)
    assert not torch.equal(first.query, other.query)


def test_it_stops_when_dev_gets_no_better_and_keeps_the_best(similarity):
    train, dev = similarity
    backwards = copy.copy(dev.task)
    backwards.score = lambda outcomes, chosen: -dev.task.score(outcomes, chosen)  # the better, the worse
    pooler, best, epochs = fitted("attention", train, Split(backwards, dev.states), replace(FAST, patience=2))
    assert best.number == 0 and len(epochs) == 3
    assert not pooler.query.any()


def test_exponents_stay_where_they_mean_something(similarity):
    pooler, *_ = fitted("gem(p=0.02, per_dim=true)", *similarity, replace(FAST, learning_rate=1.0, epochs=2))
    assert pooler.exponent.min() >= P_RANGE[0] and pooler.exponent.max() <= P_RANGE[1]


def test_what_follows_pooling_is_part_of_it_and_stays_as_it_is(similarity):
    train, dev = similarity
    torch.manual_seed(0)
    dense = torch.nn.Linear(DIM, 3).requires_grad_(False)
    before = dense.weight.clone()
    pooler, best, _ = fitted("attention", train, dev, head=dense)
    assert torch.equal(dense.weight, before)
    assert dev.score(lambda tokens, mask: dense(pooler(tokens, mask))) == best.score != dev.score(pooler)


def test_what_cannot_be_fitted(similarity):
    train, dev = similarity
    with pytest.raises(TrainingError, match="mean has no parameters to fit"):
        fit(build("mean", DIM), train, dev, FAST)
    broken = Split(train.task, copy.copy(train.states))
    nothing, counts = torch.full((64, 1, DIM), torch.nan), torch.ones(64, 1, dtype=torch.bool)
    broken.states.batch = lambda places: (nothing[: len(places)], counts[: len(places)])
    with pytest.raises(
        TrainingError, match=r"the loss is not finite in epoch 1: the learning rate, 0.05, is too high"
    ):
        fit(build("attention", DIM), broken, dev, FAST)


@pytest.mark.slow
def test_the_average_of_poolers(similarity):
    poolers = [fitted("gated", *similarity, seed=seed)[0] for seed in (0, 1)]
    mean = averaged(poolers)
    assert torch.allclose(mean.weight, (poolers[0].weight + poolers[1].weight) / 2)
    assert mean.trained and mean.spec == "gated"
