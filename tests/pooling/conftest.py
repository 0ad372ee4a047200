"""The strategies under test. A new one is tested by adding a line here."""

from typing import NamedTuple

import pytest
import torch

from pooling import Pooler, build

DIM = 8


class Strategy(NamedTuple):
    spec: str
    linear: bool = True
    """Whether the vector is the sum of weights times token states."""
    total: bool = True
    """Whether the weights add up to one along time."""
    reaches_all: bool = True
    """Whether every token that counts gets some of the gradient."""

    def untrained(self) -> Pooler:
        return build(self.spec, DIM)

    def fitted(self, seed: int = 0) -> Pooler:
        """One whose parameters are anything but those it was born with."""
        pooler = self.untrained()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in pooler.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(2.5 + noise.tanh() if name.endswith("exponent") else noise)
        pooler.mark_trained()
        return pooler


STRATEGIES = [
    Strategy("cls", reaches_all=False),
    Strategy("mean"),
    Strategy("mean_sqrt_len", total=False),
    Strategy("weighted_mean"),
    Strategy("max", reaches_all=False),
    Strategy("last", reaches_all=False),
    Strategy("token('[MASK]')", reaches_all=False),
    Strategy("attention"),
    Strategy("attention(scores=descriptors)"),
    Strategy("gated"),
    Strategy("multihead_attention(heads=2)", linear=False),
    Strategy("multihead_attention(heads=3, combine=mean)"),
    Strategy("multihead_attention(heads=4, split_heads=True)", linear=False),
    Strategy("multihead_attention(heads=4, split_heads=True, projection=True)", linear=False),
    Strategy("multihead_attention(heads=2, projection=True)", linear=False),
    Strategy("gem(p=3.0)", linear=False),
    Strategy("gem(p=1.5, per_dim=True)", linear=False),
    Strategy("gem(p=3.0, negative=clamp)", linear=False, reaches_all=False),
    Strategy("kmax(k=2)", reaches_all=False),
    Strategy("kmax(k=9)"),
    Strategy("logsumexp(beta=1.0)", linear=False),
    Strategy("logsumexp(beta=0.01)", linear=False),
    Strategy("piecewise(n=3)", reaches_all=False),
    Strategy("piecewise(n=9)", reaches_all=False),
    Strategy("piecewise(n=2, by=mean)"),
    Strategy("max + piecewise(n=2) + piecewise(n=4)", reaches_all=False),
    Strategy("mean + max"),
    Strategy("cls + gated + weighted_mean"),
    Strategy("mean + (attention > mean) + gem(p=2.0)", linear=False),
    Strategy("attention > mean"),
    Strategy("gated > attention > mean", total=False),
    Strategy("window(size=3, stride=2) > mean"),
    Strategy("window(size=2, stride=1, by=max) > mean", reaches_all=False),
    Strategy("window(size=2, stride=2, by=max) > mean + max", reaches_all=False),
    Strategy("window(size=2, stride=2) > weighted_mean + max"),
    Strategy("adaptive(n=3) > gated"),
    Strategy("adaptive(n=3, by=max) > multihead_attention(heads=2, combine=mean)", reaches_all=False),
    Strategy("gated > window(size=3, stride=2) > weighted_mean", total=False),
]

WITH_PARAMETERS = [s for s in STRATEGIES if any(True for _ in s.untrained().parameters())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, chosen in {
        "strategy": STRATEGIES,
        "linear": [s for s in STRATEGIES if s.linear],
        "total": [s for s in STRATEGIES if s.total],
        "with_parameters": WITH_PARAMETERS,
        "reaching_all": [s for s in STRATEGIES if s.reaches_all],
    }.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, chosen, ids=[s.spec for s in chosen])


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(4, 6, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> torch.Tensor:
    """Padding on the right, on the left, on both sides with a hole, and none."""
    return torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
