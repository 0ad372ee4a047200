"""Fits a pooler over frozen token states: Adam, a dev score after each epoch, the best epoch kept."""

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
from pooling.tasks.task import Indices, Outcomes, Task
from pooling.training.objectives import objective
from pooling.training.states import Encode, States

Head = Callable[[Tensor], Tensor]
"""From pooled vectors to those that are compared: the frozen modules that follow pooling in a checkpoint."""


class TrainingError(ValueError):
    """Fitting cannot continue; the message says what to change."""


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Args:
        epochs: maximum number of passes over the examples.
        batch_size: examples per step.
        learning_rate: of Adam.
        patience: epochs without a better dev score after which fitting stops.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.002
    patience: int = 3


@dataclass(frozen=True)
class Split:
    """A task, and the states of the texts of all its parts, in order."""

    task: Task
    states: States

    def outcomes(self, encode: Encode) -> Outcomes:
        """Compute the outcome of each item for the vectors that `encode` gives."""
        ends = np.cumsum([len(part.texts) for part in self.task.parts])
        return self.task.outcomes(np.split(self.states.pooled(encode).numpy(), ends[:-1]))

    def scores(self, outcomes: Outcomes, chosen: Indices | None = None) -> list[float]:
        """Compute the deciding metric, times 100, of several strategies over all items or the chosen ones.

        Args:
            outcomes: (strategies, size, ...).
            chosen: indices of the items, which may repeat.
        """
        chosen = np.arange(self.task.size) if chosen is None else chosen
        found: list[float] = (100 * self.task.score(outcomes[:, chosen], chosen)[:, 0]).tolist()
        return found

    def score(self, encode: Encode) -> float:
        """Compute the deciding metric, times 100, for the vectors that `encode` gives."""
        return self.scores(self.outcomes(encode)[np.newaxis])[0]


@dataclass(frozen=True)
class Epoch:
    """The result of an epoch; number 0 is the pooler before fitting, which has no loss."""

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
    on_epoch: Callable[[Epoch], object] = lambda _: None,
) -> Epoch:
    """Fit a pooler in place and leave it as it was after its best epoch, which may be number 0.

    The same arguments give the same parameters on the same machine.

    Args:
        pooler: with parameters, as built.
        train: data to fit to; `objective` tells what for.
        dev: data to select the best epoch by.
        settings: hyperparameters.
        head: frozen modules that follow pooling.
        seed: of the order of the examples.
        on_epoch: called after each epoch.

    Returns:
        The best epoch.

    Raises:
        DataError: poolers cannot be fitted to such data.
        TrainingError: the pooler has no parameters, or the loss is not finite.
    """
    parameters = list(pooler.parameters())
    if not parameters:
        raise TrainingError(f"{pooler.spec} has no parameters to fit; name a learned pooling such as 'attention'")
    _separate_heads(pooler)
    goal = objective(train.task)
    optimizer = torch.optim.Adam(parameters, settings.learning_rate)
    encode = followed_by(pooler, head)
    best = Epoch(0, None, dev.score(encode))
    on_epoch(best)
    kept = copy.deepcopy(pooler.state_dict())
    rng = np.random.default_rng(seed)
    for number in range(1, settings.epochs + 1):
        pooler.train()
        losses = []
        for examples in _batches(goal.examples, settings.batch_size, rng):
            loss = goal.loss(lambda texts: encode(*train.states.batch(texts)), examples)
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
        on_epoch(epoch)
        if epoch.score > best.score:
            best, kept = epoch, copy.deepcopy(pooler.state_dict())
        elif number - best.number >= settings.patience:
            break
    pooler.load_state_dict(kept)
    pooler.eval().mark_trained()
    return best


def followed_by(pooler: Pooler, head: Head) -> Encode:
    """Compose a pooler and what follows it."""
    return lambda tokens, mask: head(pooler(tokens, mask))


def averaged(poolers: Sequence[Pooler]) -> Pooler:
    """Return a pooler with the mean parameters of several that began equal (model soup; Wortsman et al. 2022)."""
    mean = copy.deepcopy(poolers[0])
    states = [pooler.state_dict() for pooler in poolers]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    return mean


def _batches(examples: int, size: int, rng: np.random.Generator) -> Iterator[Indices]:
    order = rng.permutation(examples)
    for start in range(0, examples, size):
        yield order[start : start + size]


def _separate_heads(pooler: Pooler) -> None:
    """Break the symmetry of whole heads, in the same way for every seed, so that the results can be averaged."""
    for number, part in enumerate(pooler.modules()):
        if isinstance(part, MultiHeadAttention) and not part.split_heads:
            part.separate_heads(torch.Generator().manual_seed(number))


def _constrain(pooler: Pooler) -> None:
    """Clamp the exponents of GeM to their valid range."""
    for part in pooler.modules():
        if isinstance(part, GeM):
            part.exponent.data.clamp_(*P_RANGE)
