"""Which strategy is advised, for comparisons that are known."""

import numpy as np
import pytest

from service.evaluation.advice import advise, advise_reranking, advise_spans
from service.evaluation.comparison import Comparison

FIXED = ["mean", "max", "last"]
LEARNED = "fitted/pooler"


def comparison(*scores, spread=0.01):
    """Of mean, max, last and a learned one, as many as there are scores; each difference has `spread`."""
    names = ("mean", "max", "last", LEARNED)[: len(scores)]
    values = np.array(scores)[:, None]
    noise = np.random.default_rng(0).normal(size=(500, len(scores), 1)) * spread / np.sqrt(2)
    return Comparison(names, ("spearman",), values, values + noise)


@pytest.mark.parametrize(
    ("found", "choice"),
    [
        ([comparison(0.80, 0.81, 0.70)], "mean"),  # better, but within noise
        ([comparison(0.80, 0.90, 0.70)], "max"),
        ([comparison(0.80, 0.90, 0.95)], "last"),
        ([comparison(0.80, 0.90, 0.70), comparison(0.80, 0.70, 0.70)], "mean"),  # worse elsewhere
        ([comparison(0.80, 0.90, 0.70), comparison(0.80, 0.79, 0.70)], "max"),
    ],
)
def test_the_declared_one_stays_unless_another_is_better_beyond_noise(found, choice):
    advice = advise(FIXED, [], found, "mean")
    assert advice.strategy == choice
    assert not advice.fit
    if choice == "mean":
        assert advice.sentence == (
            "Keep mean, which the checkpoint declares: no other pooling is better beyond noise."
        )


def test_the_gain_is_named():
    advice = advise(FIXED, [], [comparison(0.80, 0.9012, 0.70)], "mean")
    assert advice.sentence == "Use max: 90.12 against 80.00 (spearman) of mean, beyond noise."


def test_without_a_declaration_the_highest_or_a_simpler_one_within_noise():
    advice = advise(FIXED, [], [comparison(0.46, 0.40, 0.55)])
    assert (advice.strategy, advice.fit) == ("last", True)
    assert advice.sentence == (
        "Use last for now: no other fixed pooling scores higher, but the checkpoint declares no pooling, so one "
        "that is fitted to your data is likely to be better."
    )
    advice = advise(FIXED, [], [comparison(0.54, 0.40, 0.55)])
    assert (advice.strategy, advice.fit) == ("mean", True)
    assert advice.sentence.startswith("Use mean for now: last scores higher within noise, but")


@pytest.mark.parametrize("declared", [None, "mean"])
def test_a_learned_one_must_be_better_beyond_noise(declared):
    advice = advise(FIXED, [LEARNED], [comparison(0.46, 0.40, 0.45, 0.67)], declared)
    assert advice.strategy == LEARNED
    assert advice.sentence == "Use fitted/pooler: 67.00 against 46.00 (spearman) of mean, beyond noise."
    advice = advise(FIXED, [LEARNED], [comparison(0.46, 0.40, 0.45, 0.47)], declared)
    assert (advice.strategy, advice.fit) == ("mean", False)
    # Better than what is declared is not enough where a fixed one does as well.
    advice = advise(FIXED, [LEARNED], [comparison(0.46, 0.60, 0.45, 0.605)], declared)
    assert advice.strategy == "max"


def test_a_learned_one_that_is_not_better_is_said_to_be_not():
    advice = advise(FIXED, [LEARNED], [comparison(0.46, 0.40, 0.45, 0.47)])
    assert advice.sentence == (
        "Use mean: no other fixed pooling scores higher, and no learned one is better beyond noise."
    )


def test_saved_poolers_alone():
    alone = Comparison((LEARNED,), ("spearman",), np.ones((1, 1)), np.ones((9, 1, 1)))
    advice = advise([], [LEARNED], [alone])
    assert (advice.strategy, advice.fit) == (LEARNED, False)
    assert advice.sentence == (
        "Use fitted/pooler: no other fixed pooling scores higher, and no learned one is better beyond noise."
    )


def by_spans(*scores):
    """Of mean and max over whole documents, and of mean over spans, late and early."""
    names = ("mean", "max", "mean, late", "mean, early")
    found = comparison(*scores)
    return [Comparison(names, ("ndcg@10",), found.scores, found.resamples)]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ((0.60, 0.50, 0.605, 0.40), "Keep mean over whole documents: nothing else is better beyond noise. Within "),
        ((0.60, 0.50, 0.40, 0.40), "Keep mean over whole documents: nothing else is better beyond noise."),
        ((0.60, 0.50, 0.80, 0.70), "Use mean, late over spans: 80.00 against 60.00 (ndcg@10) of mean, beyond noise."),
        (
            (0.60, 0.50, 0.80, 0.805),
            "Use mean, early over spans: 80.50 against 60.00 (ndcg@10) of mean, beyond noise. Within noise of it: "
            "mean, late.",
        ),
        (
            (0.60, 0.80, 0.50, 0.805),
            "Use max over whole documents: 80.00 against 60.00 (ndcg@10) of mean, beyond noise. Within noise of it: "
            "mean, early.",
        ),
    ],
)
def test_spans_must_be_better_than_whole_documents_beyond_noise(scores, sentence):
    advice = advise_spans(["mean", "max"], ["mean, late", "mean, early"], by_spans(*scores), "mean")
    assert advice.sentence.startswith(sentence)
    assert advice.sentence.split(" ", 1)[1].startswith(advice.strategy)
    assert not advice.fit


def test_without_a_declaration_spans_must_be_better_than_the_highest_over_whole_documents():
    found = by_spans(0.60, 0.80, 0.70, 0.79)
    assert advise_spans(["mean", "max"], ["mean, late", "mean, early"], found).strategy == "max"
    assert advise_spans(["mean", "max"], ["mean, late", "mean, early"], found, "mean").strategy == "max"


def test_re_ranking_is_advised_where_it_is_better_beyond_noise():
    better = [comparison(0.80, 0.90)]
    assert advise_reranking("mean", "max", 20, better) == (
        ' Search with "rerank": {"by": "maxsim", "depth": 20}: 90.00 against 80.00 (spearman) of mean alone, '
        "beyond noise."
    )
    for found in ([comparison(0.80, 0.81)], [*better, comparison(0.80, 0.70)]):
        said = advise_reranking("mean", "max", 50, found)
        assert said == ' A search with "rerank": {"by": "maxsim", "depth": 50} is not better beyond noise.'
