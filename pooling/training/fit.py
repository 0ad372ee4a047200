"""Fitting a pooler over states that stay as they are: Adam, dev after each epoch, the best epoch kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pooling.base import Pooler
from pooling.learned import P_RANGE, GeM, MultiHeadAttention
from pooling.training.states import Encode, Places, States
from pooling.training.tasks import Task

Head = Callable[[Tensor], Tensor]
"""From pooled vectors to those that are compared: the frozen modules of a checkpoint behind pooling."""


class TrainingError(ValueError):
    """Fitting cannot go on; the message says what to change."""


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Args:
        epochs: most passes over the examples.
        batch_size: examples a step.
        learning_rate: Adam's.
        patience: epochs without a better dev score after which fitting stops.

    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.002
    patience: int = 3


@dataclass(frozen=True)
class Split:
    """A task and the states of its texts, in their order."""

    task: Task
    states: States

    def score(self, encode: Encode) -> float:
        """The task's metric for vectors made by `encode`."""
        return self.task.score(self.task.outcomes(self.states.pooled(encode)))


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; number 0 is the pooler before fitting, and has no loss."""

    number: int
    loss: float | None
    score: float


def fit(
    pooler: Pooler,
    train: Split,
    dev: Split,
    settings: Settings,
    *,
    head: Head = lambda vectors: vectors,
    seed: int = 0,
    told: Callable[[Epoch], object] = lambda _: None,
) -> Epoch:
    """Fit a pooler in place and leave it as it was after its best epoch, which may be the one before fitting.

    The same arguments give the same parameters on the same machine.

    Args:
        pooler: with parameters, as built.
        train: what to fit to.
        dev: what the epochs are compared by.
        settings: how.
        head: what follows pooling, frozen.
        seed: of the order of the examples.
        told: called with each epoch when it is over.

    Returns:
        The best epoch.

    Raises:
        TrainingError: the pooler has nothing to fit, or the loss is not finite.

    """
    parameters = list(pooler.parameters())
    if not parameters:
        raise TrainingError(f"{pooler.spec} has no parameters to fit; name a learned pooling such as 'attention'")
    _separate(pooler)
    optimizer = torch.optim.Adam(parameters, settings.learning_rate)
    encode = followed_by(pooler, head)
    best = Epoch(0, None, dev.score(encode))
    told(best)
    kept = copy.deepcopy(pooler.state_dict())
    rng = np.random.default_rng(seed)
    for number in range(1, settings.epochs + 1):
        pooler.train()
        losses = []
        for examples in _batches(train.task.examples, settings.batch_size, rng):
            loss = train.task.loss(lambda places: encode(*train.states.batch(places)), examples)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is not finite in epoch {number}: the learning rate, {settings.learning_rate:g}, is "
                    "too high; take a tenth of it"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _constrain(pooler)
        pooler.eval()
        epoch = Epoch(number, sum(losses) / len(losses), dev.score(encode))
        told(epoch)
        if epoch.score > best.score:
            best, kept = epoch, copy.deepcopy(pooler.state_dict())
        elif number - best.number >= settings.patience:
            break
    pooler.load_state_dict(kept)
    pooler.eval().mark_trained()
    return best


def followed_by(pooler: Pooler, head: Head) -> Encode:
    """States and mask to the vectors that are compared."""
    return lambda tokens, mask: head(pooler(tokens, mask))


def averaged(poolers: Sequence[Pooler]) -> Pooler:
    """A pooler whose parameters are the means of others' that began alike (Wortsman et al. 2022)."""
    mean = copy.deepcopy(poolers[0])
    states = [pooler.state_dict() for pooler in poolers]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    return mean


def _batches(examples: int, size: int, rng: np.random.Generator) -> Iterator[Places]:
    order = rng.permutation(examples)
    for start in range(0, examples, size):
        yield order[start : start + size]


def _separate(pooler: Pooler) -> None:
    """Tell whole heads apart, alike for every seed, so that the results can be averaged."""
    for number, part in enumerate(pooler.modules()):
        if isinstance(part, MultiHeadAttention) and not part.split_heads:
            part.separate_heads(torch.Generator().manual_seed(number))


def _constrain(pooler: Pooler) -> None:
    """Keep GeM's exponents where they mean something."""
    for part in pooler.modules():
        if isinstance(part, GeM):
            part.exponent.data.clamp_(*P_RANGE)
