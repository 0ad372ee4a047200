"""A text disturbed in several ways, and how far its vector moves under several poolings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pooling.masks import exclude_prefix
from service.embedding.embedder import Embedder, TokenStates
from service.embedding.explain import (
    EXPLAINING,
    MOST_TOKENS,
    require_size,
    require_work,
)
from service.embedding.models import Models
from service.embedding.perturbations import Spans, filled, kept, replaced, spans_of, swapped
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe
from service.embedding.viewing import Viewing
from service.errors import BrokenModel, Place, TooLarge

MOST_CHANGES: Final = 32
"""Most changes of one request."""
MOST_CHARACTERS: Final = 2**16
"""Most characters of the text, which an answer repeats for each change."""
_SEED: Final = 0
_TEXT: Final = Place("text")


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a text, in this order: its end is cut, tokens replaced, words swapped, filler appended.

    Then padding comes behind its tokens, and noise is added to their states.

    Args:
        noise: standard deviation of what is added to the states that are pooled, by their own root mean square.
        filler: how many sentences are appended.
        swaps: how many words change places with the one after them.
        replaced: about which share of the tokens is replaced by others of the text, or dropped.
        keep: which share of the tokens is kept, at least one.
        padding: how many padding tokens are added, as far as the model's longest text has room for them.
    """

    noise: float = 0.0
    filler: int = 0
    swaps: int = 0
    replaced: float = 0.0
    keep: float = 1.0
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change makes of a text and its vectors.

    Args:
        text: the text, disturbed.
        tokens: how many tokens of it are read, padding not counted.
        padding: how many padding tokens there are.
        truncated: whether it was cut to the model's limit.
        cosines: for each pooling, of its vector to that of the undisturbed text, as both are served.
        without_mask: of the mean over all states, those of padding included, to the undisturbed mean, both as pooled;
            None where the encoder gives no numbers at padding.
    """

    text: str
    tokens: int
    padding: int
    truncated: bool
    cosines: list[float]
    without_mask: float | None


@dataclass(frozen=True, slots=True)
class Perturbed:
    """Outcomes of changes to a text.

    Args:
        model: the model's name.
        layers: whose states are pooled, as `Layers.spec` has it.
        limit: the tokens of the longest text that the model takes.
        tokens: how many tokens of the undisturbed text are read.
        poolings: the poolings, in the order asked for.
        outcomes: one a change, in the order asked for.
    """

    model: str
    layers: str | dict[str, Any]
    limit: int
    tokens: int
    poolings: list[str]
    outcomes: list[Outcome]


async def perturb(
    models: Models,
    viewing: Viewing,
    text: str,
    changes: Sequence[Change],
) -> Perturbed:
    """Disturb a text in each of several ways, under each of several poolings, from one request to the encoder.

    Args:
        models: the served models.
        viewing: the poolings that the text is seen under, and how it is read.
        text: the text.
        changes: what is done to it, each time anew.

    Raises:
        ServiceError: as `Embedder.embed`, or the request exceeds a limit.
    """
    _check(text)
    embedders = viewing.embedders(models)
    prompt_name, role = viewing.asked
    reader = embedders[0]
    (read,) = await reader.tokenize([text], prompt_name=prompt_name, role=role, where=lambda _: _TEXT)
    front, _ = reader.encoder.tokenizer.frame_lengths(reader.prompt(prompt_name, role))
    spans = spans_of(reader.encoder.tokenizer.truncate(read, reader.recipe.max_tokens, front=front).offsets)
    run = partial(asyncio.get_running_loop().run_in_executor, EXPLAINING)
    texts = [await run(_disturbed, text, spans, change) for change in changes]
    rows = _Rows(text, texts, [change.padding for change in changes], apart=reader.encoder.trial.equal_lengths)
    async with reader.token_states(
        rows.texts,
        prompt_name=prompt_name,
        role=role,
        truncate=viewing.truncate,
        max_total=MOST_TOKENS,
        where=rows.places.__getitem__,
        padding=rows.padding,
        where_all=Place("changes"),
    ) as found:
        for states, where in zip(found, rows.places, strict=True):
            for embedder in embedders:
                require_size(states, embedder.recipe, where)
                embedder.recipe.require_pooled(states.ids[states.left_out :], where)
        read_of_changes = [len(found[row].tokens) for row in rows.of_change]
        require_work([embedder.recipe.pooler for embedder in embedders], read_of_changes)
        tokens = len(found[0].tokens)
        recipes = [embedder.recipe for embedder in embedders]
        outcomes = await _outcomes(reader, recipes, found, rows, texts, changes)
    recipe = recipes[0]
    named = [each.pooler.spec for each in recipes]
    return Perturbed(recipe.name, recipe.layers.spec, recipe.max_tokens, tokens, named, outcomes)


class _Rows:
    """What the encoder is given: each text once without padding, and once more with the most that is asked behind it.

    With its mask, an encoder gives the same states at the first padding tokens however many there are. One that reads
    padding is given each text with each number of padding tokens `apart`.
    """

    def __init__(self, text: str, texts: Sequence[str], padding: Sequence[int], *, apart: bool) -> None:
        most: dict[str, int] = {}
        for each, count in zip(texts, padding, strict=True):
            most[each] = max(count, most.get(each, 0))
        asked = [
            (each, count if apart or not count else most[each]) for each, count in zip(texts, padding, strict=True)
        ]
        places = {(text, 0): _TEXT}
        for index, row in enumerate(asked):
            places.setdefault(row, Place("changes", index))
        numbers = {row: number for number, row in enumerate(places)}
        self.texts = [row for row, _ in places]
        self.padding = [count for _, count in places]
        self.places = list(places.values())
        self.of_change = [numbers[row] for row in asked]


@dataclass(frozen=True, slots=True)
class _States:
    """States (1, time, dim) in double precision, their ids, and which are pooled of the text, both (1, time)."""

    states: Tensor
    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, text: TokenStates, padding: int, pad_id: int) -> _States:
        """Return those of a text with some of its padding behind it."""
        states = torch.from_numpy(np.concatenate([text.states, text.padding[:padding]])).double()
        ids = np.concatenate([text.ids, np.full(len(states) - len(text.ids), pad_id, text.ids.dtype)])
        counts = torch.arange(len(states)) < len(text.ids)
        return cls(
            states.unsqueeze(0),
            torch.from_numpy(ids).unsqueeze(0),
            exclude_prefix(counts.unsqueeze(0), text.left_out),
        )

    def noisy(self, level: float) -> _States:
        """Add noise to the states of the text, the same but for its level whatever that is."""
        if not level:
            return self
        own = self.states[self.mask]
        drawn = torch.from_numpy(np.random.default_rng(_SEED).standard_normal(tuple(own.shape)))
        states = self.states.clone()
        states[self.mask] = own + level * own.square().mean().sqrt() * drawn
        return _States(states, self.ids, self.mask)

    def vector(self, recipe: Recipe) -> Tensor:
        """Return the vector as it is served, (dim,); raises `BrokenModel` where it is not finite."""
        with torch.inference_mode():
            pooled = recipe.pooler(self.states, recipe.pooled(self.mask, self.ids)).float()
            served = complete(recipe, pooled)[0]
        if not torch.isfinite(served).all():
            raise BrokenModel(recipe.name)
        return served

    def mean(self, *, masked: bool) -> Tensor:
        """Return the mean of the states, (dim,), over those of padding too unless it is masked."""
        chosen = self.mask if masked else self.mask | (self.mask.cumsum(1) == self.mask.sum())
        return self.states[chosen].mean(0)


async def _outcomes(
    reader: Embedder,
    recipes: Sequence[Recipe],
    found: Sequence[TokenStates],
    rows: _Rows,
    texts: Sequence[str],
    changes: Sequence[Change],
) -> list[Outcome]:
    """Pool every disturbed text by every recipe, each by itself, so that what others ask is done in between."""
    run = partial(asyncio.get_running_loop().run_in_executor, EXPLAINING)
    pad_id = reader.encoder.tokenizer.pad_id
    clean = await run(_States.of, found[0], 0, pad_id)
    vectors = [await run(clean.vector, recipe) for recipe in recipes]
    outcomes = []
    for text, row, change in zip(texts, rows.of_change, changes, strict=True):
        read = found[row]
        states = await run(_changed, read, change, pad_id)
        cosines = [await run(_moved, states, *each) for each in zip(recipes, vectors, strict=True)]
        without_mask = await run(_without_mask, states, clean)
        padding = states.states.shape[1] - len(read.tokens)
        outcomes.append(Outcome(text, len(read.tokens), padding, read.truncated, cosines, without_mask))
    return outcomes


def _changed(read: TokenStates, change: Change, pad_id: int) -> _States:
    return _States.of(read, change.padding, pad_id).noisy(change.noise)


def _moved(states: _States, recipe: Recipe, before: Tensor) -> float:
    return _cosine(states.vector(recipe), before)


def _without_mask(states: _States, clean: _States) -> float | None:
    found = _cosine(states.mean(masked=False), clean.mean(masked=True))
    return found if np.isfinite(found) else None


def _cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine of two vectors, 0 where one has no length."""
    first, second = (normalize(each.double(), dim=0) for each in (one, other))
    return (first @ second).clamp(-1, 1).item()


def _disturbed(text: str, spans: Spans, change: Change) -> str:
    """Disturb a text, of which no token is replaced where that would leave no character."""
    words = [text[start:end] for start, end in spans]
    found = kept(text, spans, change.keep)
    own = [span for span in spans if span[1] <= len(found)]
    if change.replaced:
        less = replaced(found, own, change.replaced, words, _generator())
        found = less if less.strip() else found
    if change.swaps:
        found = swapped(found, change.swaps, _generator())
    return filled(found, change.filler, _generator()) if change.filler else found


def _generator() -> np.random.Generator:
    return np.random.default_rng(_SEED)


def _check(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise TooLarge(
            f"text has {len(text)} characters, and {MOST_CHARACTERS} can be disturbed, since answers repeat it for "
            "each change. Send a shorter one.",
            where=_TEXT,
            limit=MOST_CHARACTERS,
        )
