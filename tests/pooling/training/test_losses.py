"""Losses against their definitions, worked by hand."""

import math

import pytest
import torch

from pooling.training.losses import cosent, in_batch_negatives


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
