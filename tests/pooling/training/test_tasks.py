"""What data asks of a pooler, and what it scores."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pooling.tasks.data import DataError, Labelled, ScoredPairs
from pooling.training import Text, task


def test_pairs_share_texts_and_score_their_cosines():
    pairs = task(ScoredPairs(("a", "b", "a"), ("b", "c", "c"), (0.0, 1.0, 2.0)))
    assert pairs.texts == [Text("", "a"), Text("", "b"), Text("", "c")]
    assert (pairs.examples, pairs.items) == (3, 3)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    outcomes = pairs.outcomes(vectors)
    assert outcomes == pytest.approx([0, 0.5**0.5, 0.5**0.5])
    assert pairs.score(outcomes) == pytest.approx(100 * spearmanr(outcomes, [0, 1, 2]).statistic)
    assert pairs.score(outcomes, np.array([0, 1, 1])) == pytest.approx(100)


def test_a_batch_leaves_out_what_is_relevant_too(retrieval):
    ranking = task(retrieval, judged_only=True)
    assert ranking.texts == [
        *(Text("query", "first?"), Text("query", "second?")),
        *(Text("document", "one"), Text("document", "two"), Text("document", "three")),
    ]
    assert ranking.examples == 4
    # Queries 1, 1, 2, 2 with documents 1, 2, 3, 2: of each query only what the other one alone has is a negative.
    vectors = torch.nn.functional.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    negatives = {0: [3 - 1], 1: [3 - 1], 2: [0], 3: [0]}  # by row, columns of documents "three" and "one"
    cosines = vectors[[0, 0, 1, 1]] @ vectors[[2, 3, 4, 3]].T
    rows = []
    for row, columns in negatives.items():
        logits = 20 * torch.cat([cosines[row, row : row + 1], cosines[row, columns]])
        rows.append(-logits.log_softmax(0)[0])
    loss = ranking.loss(lambda places: vectors[places], np.arange(4))
    assert loss.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)


def test_all_documents_compete_when_judging(retrieval):
    ranking = task(retrieval)
    assert len(ranking.texts) == 6 and ranking.items == 2
    vectors = torch.zeros(6, 4)
    vectors[:2, 0] = 1  # the queries
    vectors[2:, 0] = torch.tensor([0.9, 0.2, 0.3, 0.8])  # one, two, three, four: by cosine to (1, 0, 0, 0)
    vectors[2:, 1] = torch.tensor([0.1, 0.9, 0.9, 0.2])
    outcomes = ranking.outcomes(vectors)  # the ranking: one, four, three, two
    gains = 1 / np.log2([2, 3, 4, 5])
    assert outcomes[0] == pytest.approx((2 * gains[0] + gains[3]) / (2 * gains[0] + gains[1]))
    assert outcomes[1] == pytest.approx((gains[2] + gains[3]) / (gains[0] + gains[1]))
    assert ranking.score(outcomes) == pytest.approx(100 * outcomes.mean())
    assert ranking.score(outcomes, np.array([1, 1])) == pytest.approx(100 * outcomes[1])


def test_positive_pairs_are_retrieval_without_roles(positives):
    ranking = task(positives(3))
    assert {text.role for text in ranking.texts} == {""}
    assert (ranking.examples, ranking.items, len(ranking.texts)) == (3, 3, 6)
    assert ranking.score(ranking.outcomes(torch.eye(3).repeat(2, 1))) == 100


def test_data_that_says_nothing():
    with pytest.raises(DataError, match=r"every score is 4, so no pair is more alike"):
        task(ScoredPairs(("a", "b"), ("c", "d"), (4.0, 4.0)))
    with pytest.raises(DataError, match=r"these are labelled texts. Poolers are fitted to"):
        task(Labelled(("a", "b"), ("x", "x")))
