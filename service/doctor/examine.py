"""Examination of a loaded model: what its checkpoint declares, what is served, and the proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from service.arrays import Vectors
from service.checkpoint import UnknownModule
from service.config import ModelConfig
from service.doctor import checks, probe
from service.doctor.findings import Finding, Report, Strategy, refused, summed_up
from service.doctor.published import published
from service.doctor.reference import NoReference, Reference
from service.doctor.strategies import alternatives, compared, cosines, vectors_under
from service.embedding.embedder import Embedder, RoutedEmbedder
from service.embedding.head import Head
from service.embedding.recipe import Recipe, needs_layers, resolve
from service.encoder.quantization import calibration_texts
from service.errors import BrokenModel, ConfigError, InvalidInput

MOST_TEXTS: Final = 32
"""Texts that are embedded; more would cost time and show nothing new."""
_BATCH: Final = 16
"""Texts in one request, so that other requests in the queue need not wait long."""
_SHORTEST: Final = 4
"""Short texts that are embedded alone and beside a longer one."""


async def examine(
    embedder: Embedder,
    *,
    reference: Reference,
    model: str | None = None,
    texts: Sequence[str] | None = None,
    unknown: Sequence[UnknownModule] = (),
    task: str | None = None,
    progress: Callable[[str], object] = lambda stage: None,
) -> Report:
    """Examine a loaded model, and of one with a Router each of its routes.

    Args:
        model: what the report calls the model; its encoder's name by default.
        texts: texts like those that will be served, at least one with a token that the encoder knows; packaged ones
            by default.
        unknown: modules that were left out of the folder.
        task: what the texts are for, where the embedder is that of a route.

    Raises:
        InvalidInput: none of the texts has a token.
        Unavailable: the queue is full.
    """
    if isinstance(embedder, RoutedEmbedder):
        return await _each_route(
            embedder, reference, model or str(embedder.recipe.checkpoint.folder), texts, progress
        )
    recipe, checkpoint = embedder.recipe, embedder.recipe.checkpoint
    precision = embedder.encoder.runtime.precision
    known = await asyncio.to_thread(published, checkpoint)  # reads the weights if they have changed
    usable = readable(embedder, neutral_texts() if texts is None else texts)
    # What spells a special token is read otherwise than by sentence-transformers, on purpose.
    tokenizer = embedder.encoder.tokenizer
    spelled = () if tokenizer.parses_special_tokens else tokenizer.special_tokens
    comparable = [text for text in usable if not any(token in text for token in spelled)]
    sample = evenly_spread(comparable or usable, MOST_TEXTS)

    model = model or checkpoint.name
    progress("the service's own vectors")
    try:
        served = await _embed(embedder, sample)
    except BrokenModel as error:
        return refused(model, str(error))
    declared = Embedder(embedder.encoder, await asyncio.to_thread(_as_declared, embedder))
    ours = served if declared.fingerprint == embedder.fingerprint else await _embed(declared, sample)
    progress("sentence-transformers' vectors")
    agreement = await _agreement(ours, reference, declared, sample, task)

    progress("the other strategies")
    recipes = {name: of for name, of in alternatives(recipe).items() if of.head.output_dim == recipe.head.output_dim}
    expected = (known.pooling if known else None) or checkpoint.pooling or recipe.pooler.spec
    expected = expected if expected in recipes else recipe.pooler.spec
    vectors = await vectors_under(embedder, recipes, sample)
    of_probe = await vectors_under(embedder, recipes, probe.sentences())
    evidence = await asyncio.to_thread(probe.compare, of_probe, recipe.pooler.spec)
    strategies = compared(vectors, vectors[expected], evidence)
    by_name = {each.pooling: each for each in strategies}

    encoded = embedder.encoder.tokenizer.encode(usable, prompt=embedder.prompt())
    findings = [
        checks.weights(checkpoint, known),
        *checks.modules(checkpoint, unknown),
        checks.pooling(recipe, known, by_name),
        agreement,
        checks.precision(precision, embedder.encoder.agreement),
        checks.trial(embedder.encoder.trial),
        checks.padding(*await _beside(embedder, sample), precision, recipe.pooler.spec),
        checks.normalisation(recipe, known, served),
        *checks.similarity(recipe),
        checks.head(recipe, await _without_head(embedder, sample, served)),
        checks.prompt(recipe, await _without_prompt(embedder, sample)),
        checks.truncation([text.full_length for text in encoded], recipe.max_tokens, texts is not None),
        *checks.unknown_tokens(encoded, embedder.encoder.tokenizer.unknown_id, texts is not None),
        checks.evidence(recipe.pooler.spec, expected, strategies),
    ]
    sound = f"{recipe.pooler.spec}, {'normalised' if recipe.normalize else 'not normalised'}"
    return Report(
        model, declares(declared.recipe), serves(embedder), findings, strategies, summed_up(model, sound, findings)
    )


async def _each_route(
    embedder: RoutedEmbedder,
    reference: Reference,
    model: str,
    texts: Sequence[str] | None,
    progress: Callable[[str], object],
) -> Report:
    """Examine each route as a model of its own, and name it before whatever is found there."""
    declared: dict[str, Any] = {"default route": embedder.default_route}
    served: dict[str, Any] = {"default route": embedder.default_route, "fingerprint": embedder.fingerprint}
    findings: list[Finding] = []
    strategies: list[Strategy] = []
    for route, branch in embedder.routes.items():

        def show(stage: str, route: str = route) -> object:
            return progress(f"{route}: {stage}")

        task = None if route == "default" else route
        found = await examine(branch, reference=reference, model=model, texts=texts, task=task, progress=show)
        declared |= {f"{route}: {name}": value for name, value in found.declared.items()}
        served |= {f"{route}: {name}": value for name, value in found.served.items()}
        findings += [replace(finding, name=f"{route}: {finding.name}") for finding in found.findings]
        strategies += [replace(each, pooling=f"{route}: {each.pooling}") for each in found.strategies]
    sound = f"with the routes {', '.join(embedder.routes)}"
    return Report(model, declared, served, findings, strategies, summed_up(model, sound, findings))


def neutral_texts() -> list[str]:
    """Return packaged texts of many kinds, with which no int8 encoder was calibrated."""
    return calibration_texts(None)[1]


def evenly_spread(texts: Sequence[str], most: int) -> list[str]:
    """Return at most `most` of the texts, evenly spread."""
    return [texts[place * len(texts) // most] for place in range(most)] if len(texts) > most else list(texts)


def readable(embedder: Embedder, texts: Sequence[str]) -> list[str]:
    """Return the texts that have a token; raises `InvalidInput` if none has."""
    tokenizer = embedder.encoder.tokenizer
    found = [text for text in texts if text.strip() and not tokenizer.is_blank(text)]
    if not found:
        raise InvalidInput("none of the texts has a token that this model knows; give texts with words in them.")
    return found


def declares(recipe: Recipe) -> dict[str, Any]:
    """Return how a checkpoint declares that it is to be used, by name."""
    checkpoint = recipe.checkpoint
    return {
        "pooling": checkpoint.pooling,
        "normalize": recipe.head.normalize if checkpoint.pooling else None,
        "layers": recipe.head.spec,
        "max_tokens": recipe.max_tokens,
        "prompts": dict(checkpoint.prompts),
        "default_prompt": checkpoint.default_prompt,
        "truncate_dim": checkpoint.truncate_dim,
        "similarity": checkpoint.similarity,
    }


def serves(embedder: Embedder) -> dict[str, Any]:
    """Return how the model is served, by the same names and more."""
    recipe, runtime = embedder.recipe, embedder.encoder.runtime
    return {
        "pooling": recipe.pooler.spec,
        "normalize": recipe.normalize,
        "layers": recipe.head.spec,
        "max_tokens": recipe.max_tokens,
        "prompts": dict(recipe.prompts),
        "default_prompt": recipe.default_prompt,
        "truncate_dim": recipe.truncate_dim,
        "dimension": embedder.dim,
        "runtime": f"{runtime.backend} {runtime.precision}",
        "fingerprint": embedder.fingerprint,
    }


def _as_declared(embedder: Embedder) -> Recipe:
    """Return the recipe without overrides; without a declared pooling the mean, as sentence-transformers has it."""
    encoder, checkpoint = embedder.encoder, embedder.recipe.checkpoint
    settings = ModelConfig(encoder=checkpoint.name, pooling="declared" if checkpoint.pooling else "mean")
    try:
        if needs_layers("declared", settings, checkpoint):
            encoder.carry_layers()
        return resolve("declared", settings, checkpoint, encoder.tokenizer, encoder.anatomy, encoder.depth)
    except ConfigError:  # only the config, not the checkpoint, limits the length of a text
        settings = settings.model_copy(update={"max_tokens": embedder.recipe.max_tokens})
        return resolve("declared", settings, checkpoint, encoder.tokenizer, encoder.anatomy, encoder.depth)


async def _embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
    return np.concatenate([(await embedder.embed(batch, truncate="right")).vectors for batch in batches])


async def _agreement(
    ours: Vectors, reference: Reference, declared: Embedder, texts: Sequence[str], task: str | None
) -> Finding:
    try:
        theirs = await reference(declared.recipe.checkpoint.folder, texts, task)
    except NoReference as error:
        return Finding(
            "agreement",
            "warning",
            f"sentence-transformers does not run this folder, so nothing is proven: {error}",
            "see what it says; the service does not need it",
        )
    encoder = declared.encoder
    return checks.agreement(ours, theirs, encoder.runtime.precision, encoder.checkpoint.config)


async def _beside(embedder: Embedder, texts: Sequence[str]) -> tuple[Vectors, Vectors]:
    """Embed the shortest texts alone, and in one batch with the longest, so that they are padded."""
    by_length = sorted(texts, key=len)
    short, longest = by_length[:_SHORTEST], by_length[-1]
    alone = [await _embed(embedder, [text]) for text in short]
    return np.concatenate(alone), (await _embed(embedder, [*short, longest]))[:-1]


async def _without_head(embedder: Embedder, texts: Sequence[str], served: Vectors) -> float | None:
    """Return the mean cosine to vectors made without the layers after pooling; None if sizes differ."""
    recipe = embedder.recipe
    bare = replace(recipe, head=Head((), recipe.pooler.output_dim))
    if not recipe.head.layers or bare.head.output_dim != recipe.head.output_dim:
        return None
    return float(cosines(await _embed(Embedder(embedder.encoder, bare), texts), served).mean())


async def _without_prompt(embedder: Embedder, texts: Sequence[str]) -> float | None:
    """Return the mean cosine of vectors with and without the default prompt, else the first one; None without any."""
    prompts = {name: text for name, text in embedder.recipe.checkpoint.prompts.items() if text}
    if not prompts:
        return None
    name = embedder.recipe.checkpoint.default_prompt
    name = name if name in prompts else next(iter(prompts))
    prompted = replace(embedder.recipe, prompts=prompts, default_prompt=name)
    unprompted = replace(embedder.recipe, prompts={}, default_prompt=None)
    found = [await _embed(Embedder(embedder.encoder, recipe), texts) for recipe in (prompted, unprompted)]
    return float(cosines(*found).mean())
