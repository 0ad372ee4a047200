"""Losses against their definitions, worked by hand, and the examples that tasks give."""

import math

import numpy as np
import pytest
import torch

from pooling.tasks import Classification, DataError, Similarity
from pooling.training import objective
from pooling.training.objectives import cosent, in_batch_negatives


def test_cosent_by_hand():
    cosines, scores = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([1.0, 3.0, 3.0])
    # Pairs 1 and 2 should be above pair 0; which of the two is above the other does not matter.
    wanted = math.log(1 + math.exp(2 * (0.9 - 0.2)) + math.exp(2 * (0.9 - 0.5)))
    assert cosent(cosines, scores, scale=2).item() == pytest.approx(wanted)


def test_cosent_is_that_of_sentence_transformers():
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    first, second, scores = torch.randn(12, 5), torch.randn(12, 5), torch.randint(0, 5, (12,)).float()
    theirs = CoSENTLoss(None).compute_loss_from_embeddings([first, second], scores)
    assert torch.allclose(cosent(torch.cosine_similarity(first, second), scores), theirs, atol=1e-4)


def test_cosent_of_equal_scores_is_zero():
    cosines = torch.tensor([0.9, 0.2], requires_grad=True)
    loss = cosent(cosines, torch.tensor([2.0, 2.0]))
    loss.backward()
    assert loss.item() == 0 and not cosines.grad.any()


def test_negatives_by_hand_and_one_left_out():
    cosines = torch.tensor([[0.5, 0.1], [0.3, 0.4]])
    nothing, one = torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[False, True], [False, False]])
    first, second = math.log(1 + math.exp(2 * (0.1 - 0.5))), math.log(1 + math.exp(2 * (0.3 - 0.4)))
    assert in_batch_negatives(cosines, nothing, scale=2).item() == pytest.approx((first + second) / 2)
    assert in_batch_negatives(cosines, one, scale=2).item() == pytest.approx(second / 2)


def test_pairs_share_texts():
    pairs = objective(Similarity(("a", "b", "a"), ("b", "c", "c"), (0.0, 1.0, 2.0)))
    assert pairs.needed.parts[0].texts == ["a", "b", "c"] and pairs.examples == 3
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    wanted = cosent(torch.tensor([0.0, 0.5**0.5, 0.5**0.5]), torch.tensor([0.0, 1.0, 2.0]))
    assert pairs.loss(lambda texts: vectors[texts], np.arange(3)).item() == pytest.approx(wanted.item())


def test_a_batch_leaves_out_what_is_relevant_too(retrieval):
    ranking = objective(objective(retrieval).needed)
    documents, queries = ranking.needed.parts
    assert (documents.texts, queries.texts) == (["one", "two", "three"], ["first?", "second?"])
    assert ranking.examples == 4
    # Queries 1, 1, 2, 2 with documents 1, 2, 3, 2: of each query only what the other one alone has is a negative.
    vectors = torch.nn.functional.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    negatives = {0: [2], 1: [2], 2: [0], 3: [0]}  # by row, columns of documents "three" and "one"
    cosines = vectors[[3, 3, 4, 4]] @ vectors[[0, 1, 2, 1]].T
    rows = []
    for row, columns in negatives.items():
        logits = 20 * torch.cat([cosines[row, row : row + 1], cosines[row, columns]])
        rows.append(-logits.log_softmax(0)[0])
    loss = ranking.loss(lambda texts: vectors[texts], np.arange(4))
    assert loss.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)


def test_documents_that_are_relevant_to_no_query_change_nothing(retrieval):
    vectors = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))  # of four documents and two queries
    whole, reduced = objective(retrieval), objective(objective(retrieval).needed)
    assert len(reduced.needed.parts[0].texts) == 3
    kept = vectors[[0, 1, 2, 4, 5]]
    losses = [each.loss(of.__getitem__, np.arange(4)) for each, of in ((whole, vectors), (reduced, kept))]
    assert torch.equal(*losses)


def test_each_relevant_pair_is_an_example(positives):
    ranking = objective(positives(3))
    assert (ranking.examples, ranking.needed.size, ranking.metric) == (3, 3, "nDCG@10")


def test_data_that_nothing_can_be_fitted_to():
    with pytest.raises(DataError, match="every pair has the score 4, so there is no order to follow"):
        objective(Similarity(("a", "b"), ("c", "d"), (4.0, 4.0)))
    with pytest.raises(DataError, match=r"these are labelled texts\. Poolers are fitted to"):
        objective(Classification(("a", "b"), ("x", "x")))
