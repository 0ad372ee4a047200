"""MaxSim: worked numbers, and what never changes a score."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pooling import masks, maxsim

ROOT = 2**-0.5


def score(query, document):
    """Of token states that all count."""
    queries, documents = torch.tensor([query]), torch.tensor([document])
    return float(maxsim(queries, torch.ones(queries.shape[:2]), documents, torch.ones(documents.shape[:2])))


@pytest.mark.parametrize(
    ("query", "document", "expected"),
    [
        # Each of the query's tokens finds one in the same direction, however long either is.
        ([[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]], 1.0),
        # The first finds itself (1), the second the diagonal (0.7071): their mean.
        ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]], (1 + ROOT) / 2),
        # 3-4-5: cosines 0.6 and 0.8 with the one token of the document.
        ([[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0]], 0.7),
        # The least bad counts: of 0 and -1 it is 0, and of -1 alone -1.
        ([[1.0, 0.0]], [[-1.0, 0.0], [0.0, -5.0]], 0.0),
        ([[1.0, 0.0]], [[-1.0, 0.0]], -1.0),
        # A token of the query that comes twice counts twice.
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]], 2 / 3),
    ],
)
def test_worked_numbers(query, document, expected):
    assert score(query, document) == pytest.approx(expected, abs=1e-6)


def test_it_is_no_similarity_of_equals():
    short, long = [[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert score(short, long) == pytest.approx(1.0)
    assert score(long, short) == pytest.approx(0.5)


def test_texts_without_a_token_that_counts_are_last():
    states = torch.randn(2, 3, 4)
    none = torch.tensor([[1, 1, 1], [0, 0, 0]])
    found = maxsim(states, none, states, none)
    assert found[0, 0] == pytest.approx(1.0)
    assert found.flatten()[1:].tolist() == [-1.0] * 3
    assert maxsim(states[:0], none[:0], states, none).shape == (0, 2)
    assert maxsim(states, none, states[:0], none[:0]).shape == (2, 0)


def plainly(query, document):
    """By the definition, one token after the other."""
    cosine = torch.nn.functional.cosine_similarity
    return sum(max(cosine(one, other, dim=0) for other in document) for one in query) / len(query)


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(queries=lengths, documents=lengths, more=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_neither_padding_nor_order_nor_company_changes_a_score(queries, documents, more, seed):
    generator = torch.Generator().manual_seed(seed)

    def padded(counts, side):
        mask = masks.from_lengths(counts, max(counts) + more, padding=side)
        states = torch.randn(*mask.shape, 5, generator=generator)
        return states, mask

    left, left_mask = padded(queries, "right")
    right, right_mask = padded(documents, "left")
    expected = torch.tensor(
        [
            [plainly(left[q][left_mask[q]], right[d][right_mask[d]]) for d in range(len(documents))]
            for q in range(len(queries))
        ]
    )
    assert_close(maxsim(left, left_mask, right, right_mask), expected, atol=1e-5, rtol=0)
    for spoilt, mask in ((left, left_mask), (right, right_mask)):
        spoilt[~mask] = torch.nan
    assert_close(maxsim(left, left_mask, right, right_mask), expected, atol=1e-5, rtol=0)
    order = torch.randperm(right.shape[1], generator=generator)
    assert_close(maxsim(left, left_mask, right[:, order], right_mask[:, order]), expected, atol=1e-5, rtol=0)
    assert_close(maxsim(3 * left, left_mask, right / 7, right_mask), expected, atol=1e-5, rtol=0)


def test_long_texts_are_compared_in_parts():
    generator = torch.Generator().manual_seed(0)
    queries, documents = torch.randn(2, 1_500, 3, generator=generator), torch.randn(3, 1_100, 3, generator=generator)
    mask = masks.from_lengths([1_100, 7, 900])
    unit = torch.nn.functional.normalize
    cosines = torch.einsum("qsd,ntd->qnst", unit(queries, dim=2), unit(documents, dim=2))
    expected = cosines.masked_fill(~mask[None, :, None], -1).amax(3).mean(2)
    assert_close(maxsim(queries, torch.ones(2, 1_500), documents, mask), expected, atol=1e-5, rtol=0)


def test_halves_are_compared_in_float32():
    states = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    counts = torch.ones(1, 4)
    found = maxsim(states.bfloat16(), counts, states.bfloat16(), counts)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1.0, abs=1e-6)


def test_what_follows_a_text_is_left_out_under_any_padding():
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    found = masks.exclude_suffix(mask, torch.tensor([1, 2, 3]))
    assert found.tolist() == torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool().tolist()
    with pytest.raises(ValueError, match="negative"):
        masks.exclude_suffix(mask, -1)
