"""Small examples whose results can be checked by hand."""

import pytest
import torch
from torch.testing import assert_close

from pooling import Attention, Mean, build, masks, pool_spans


def pool(spec: str, tokens: list[list[float]], mask: list[int] | None = None) -> torch.Tensor:
    states = torch.tensor([tokens])
    counts = torch.ones(1, len(tokens)) if mask is None else torch.tensor([mask])
    return build(spec, states.shape[2])(states, counts.bool())[0]


def near(vector: torch.Tensor, expected: list[float], within: float = 1e-6) -> None:
    assert_close(vector, torch.tensor(expected), atol=within, rtol=0)


def test_1_cls_and_mean_of_four_tokens():
    tokens = [[0.5, 0.3, -0.1], [0.8, -0.2, 0.4], [0.1, 0.9, 0.3], [-0.3, 0.5, 0.6]]
    near(pool("cls", tokens), [0.5, 0.3, -0.1])
    near(pool("mean", tokens), [0.275, 0.375, 0.3])


def test_2_what_the_mask_changes():
    tokens = [[0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.1, 0.05]]
    near(pool("mean", tokens), [0.45, 0.3375])
    near(pool("mean", tokens, [1, 1, 1, 0]), [0.567, 0.433], within=5e-4)


FOUR = [[0.5, 0.3], [0.8, -0.2], [0.1, 0.9], [-0.3, 0.5]]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("mean", [0.275, 0.375]), ("max", [0.8, 0.9]), ("cls", [0.5, 0.3]), ("last", [-0.3, 0.5])],
)
def test_3_fixed(spec, expected):
    near(pool(spec, FOUR), expected)


def test_3_attention():
    attention = Attention(2)
    attention.load_state_dict({"query": torch.tensor([0.7, -0.5])})
    tokens, mask = torch.tensor([FOUR]), torch.ones(1, 4).bool()
    near(attention.weights(tokens, mask)[0].detach(), [0.272, 0.377, 0.180, 0.171], within=1e-3)
    near(attention(tokens, mask)[0].detach(), [0.405, 0.254], within=1e-3)


@pytest.mark.parametrize(("p", "expected"), [(1, 0.950), (3, 1.318), (10, 1.741)])
@pytest.mark.parametrize("negative", ["signed", "clamp"])
def test_4_gem(p, expected, negative):
    vector = pool(f"gem(p={p}, negative={negative})", [[1.0], [0.5], [2.0], [0.3]])
    near(vector.detach(), [expected], within=5e-4)


def test_4_gem_tends_to_the_max():
    vector = pool("gem(p=100)", [[1.0], [0.5], [2.0], [0.3]]).detach()
    near(vector, [2.0 * 0.25 ** (1 / 100)], within=1e-4)
    near(pool("max", [[1.0], [0.5], [2.0], [0.3]]), [2.0])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("token('[MASK]')", [0.5, 0.3]),  # the first that counts
        ("kmax(k=1)", [0.8, 0.9]),
        ("kmax(k=2)", [0.65, 0.7]),  # (0.8 + 0.5) / 2, (0.9 + 0.5) / 2
        ("kmax(k=3)", [1.4 / 3, 1.7 / 3]),
        ("kmax(k=9)", [0.275, 0.375]),  # of four tokens, as the mean
        ("piecewise(n=2)", [0.8, 0.3, 0.1, 0.9]),
        ("piecewise(n=2, by=mean)", [0.65, 0.05, -0.1, 0.7]),
        # Tokens 1 and 2, 2 and 3, 3 and 4: floor(4 i / 3) to ceil(4 (i + 1) / 3).
        ("piecewise(n=3)", [0.8, 0.3, 0.8, 0.9, 0.1, 0.9]),
        ("max + piecewise(n=2)", [0.8, 0.9, 0.8, 0.3, 0.1, 0.9]),
        # log((e^0.5 + e^0.8 + e^0.1 + e^-0.3) / 4) = log(5.7203 / 4), and log(6.2769 / 4)
        ("logsumexp(beta=1)", [0.35772, 0.45058]),
        # log((e^2 + e^3.2 + e^0.4 + e^-1.2) / 4) / 4 = log(33.714 / 4) / 4, and log(47.757 / 4) / 4
        ("logsumexp(beta=4)", [0.53291, 0.61996]),
    ],
)
def test_4_between_mean_and_max_and_piece_by_piece(spec, expected):
    near(pool(spec, FOUR), expected, within=2e-5)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("piecewise(n=3)", [0.5, 0.8, 0.8]), ("piecewise(n=4, by=mean)", [0.5, 0.5, 0.8, 0.8]), ("kmax", [0.65])],
)
def test_4_a_text_shorter_than_its_pieces_or_k(spec, expected):
    near(pool(spec, [[9.0], [0.5], [0.8]], [0, 1, 1]), expected)


@pytest.mark.parametrize(
    ("spec", "expected"), [("max", [[0.8, 0.9], [0.9, 0.8]]), ("mean", [[0.45, 0.525], [0.5, 0.45]])]
)
def test_5_blocks_are_spans(spec, expected):
    grid = torch.tensor([[0.2, 0.8, 0.1, 0.9], [0.5, 0.3, 0.7, 0.4], [0.6, 0.1, 0.3, 0.5], [0.4, 0.9, 0.2, 0.8]])
    block = torch.arange(4) // 2
    cell = (block.unsqueeze(1) * 2 + block).flatten()
    blocks = (cell == torch.arange(4).unsqueeze(1)).unsqueeze(0)
    vectors, valid = pool_spans(build(spec, 1), grid.reshape(1, 16, 1), blocks)
    assert valid.all()
    assert_close(vectors.reshape(2, 2), torch.tensor(expected))


@pytest.mark.parametrize(("by", "expected"), [("max", [0.8, 0.9]), ("mean", [0.5, 0.5])])
def test_5_windows_over_time(by, expected):
    tokens, mask = torch.tensor([[[0.2], [0.8], [0.1], [0.9]]]), torch.ones(1, 4).bool()
    vectors, _ = pool_spans(build(by, 1), tokens, masks.windows(mask, size=2, stride=2))
    near(vectors[0, :, 0], expected)
    near(pool(f"window(size=2, stride=2, by={by}) > mean", tokens[0].tolist()), [sum(expected) / 2])


def test_6_max_routes_the_gradient_to_the_winner():
    tokens = torch.tensor([[[1.2], [0.5], [0.3], [2.7]]], requires_grad=True)
    build("max", 1)(tokens, torch.ones(1, 4).bool()).backward(torch.tensor([[0.5]]))
    near(tokens.grad.flatten(), [0, 0, 0, 0.5], within=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.2, 0.8, 0.1, 0.9, 0.3, 0.4, 0.6, 0.7], 0.5),
        ([3.0] + [0.1] * 8, 0.422),
        ([2.1, 1.8, 2.3, 1.9, 2.5, 2.0, 1.7, 2.2, 2.4], 2.1),
    ],
)
def test_7_global_mean(values, expected):
    near(pool("mean", [[value] for value in values]), [expected], within=5e-4)


@pytest.mark.parametrize(("time", "segments"), [(6, [(0, 3), (3, 6)]), (7, [(0, 4), (3, 7)])])
def test_8_adaptive_segments(time, segments):
    tokens = torch.randn(1, time, 3)
    cut = masks.adaptive(torch.ones(1, time).bool(), 2)
    assert [tuple(row.nonzero().flatten()[[0, -1]].tolist()) for row in cut[0]] == [(a, b - 1) for a, b in segments]
    vectors, _ = pool_spans(Mean(3), tokens, cut)
    assert_close(vectors, torch.nn.functional.adaptive_avg_pool1d(tokens.mT, 2).mT)
