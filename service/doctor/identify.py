"""Identification: which pooling a server really applies, found out from its vectors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.doctor import checks
from service.doctor.endpoint import Endpoint, EndpointError
from service.doctor.examine import declares, evenly_spread, neutral_texts, readable
from service.doctor.findings import Finding, Report, Strategy
from service.doctor.published import published
from service.doctor.strategies import cosines
from service.doctor.variants import Variant, padded_variants, unpadded_variants
from service.embedding.embedder import Embedder

_TEXTS: Final = 12
_LONGEST: Final = 300
"""Most characters of a text."""
_FLOAT32: Final = 1 - 1e-6
"""Least cosine of two vectors that rounding to float32 leaves."""
_EXACT: Final = 0.9999
_CERTAIN: Final = 0.99
"""A cosine that a good int8 keeps, and that a wrong pooling reaches only if another one is nearer still."""
_POSSIBLE: Final = 0.9
"""The least cosine that a coarse int8 leaves; accepted if no other variant is nearer for nearly all texts."""
_WINS: Final = 0.9
_TIE: Final = 1e-4
_APART: Final = 0.001
"""Least distance of vectors with pooled padding from the right ones; such vectors are also near a padded variant."""


@dataclass(frozen=True, slots=True)
class Match:
    """A variant, and the cosine of each text's vector under it with the server's."""

    variant: Variant
    cosines: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean cosine over all texts for which it is known."""
        return float(np.nanmean(self.cosines))


async def identify(
    embedder: Embedder, endpoint: Endpoint, model: str, progress: Callable[[str], object] = lambda stage: None
) -> Report:
    """Compare a server's vectors with ours under every pooling, with and without prompts, layers and padding.

    Args:
        embedder: the model that the server is said to serve, as its checkpoint declares it.
        model: what the report calls the model.

    Raises:
        EndpointError: the server fails, or gives vectors of a size that no variant gives.
    """
    if embedder.routes:
        raise EndpointError(
            f"{model} has a Router, and a server's vectors are compared with those of one encoder. Examine the "
            "folder without --url, or compare with the folder of one route."
        )
    known = published(embedder.encoder.checkpoint)
    expected = known.pooling if known else embedder.encoder.checkpoint.pooling
    texts = _texts(embedder)
    progress(f"asking {endpoint.url}")
    alone = np.concatenate([await endpoint.embed([text]) for text in texts])
    together = await endpoint.embed(texts)
    progress("comparing with every strategy")
    ours = await unpadded_variants(embedder, texts)
    fitting = {variant: vectors for variant, vectors in ours.items() if vectors.shape[1] == alone.shape[1]}
    if not fitting:
        sizes = ", ".join(map(str, sorted({vectors.shape[1] for vectors in ours.values()})))
        raise EndpointError(
            f"{endpoint.url} gives vectors of {alone.shape[1]} dimensions, and {model} gives {sizes}: it serves "
            "another model. Name the one that it serves."
        )
    preferred = Variant(expected or "", embedder.recipe.default_prompt)
    matches = _ranked(fitting, alone, preferred)
    best = matches[0]
    claimed = endpoint.info.get("pooling")
    # A fitted pooling may be near a fixed one, so only an exact match counts.
    fitted = claimed is not None and all(variant.pooling != claimed for variant in ours)
    certain = best.mean >= _EXACT if fitted else _is_certain(matches)
    padded = await _pools_padding(embedder, texts, best.variant, fitting[best.variant], together) if certain else None
    findings = [
        _pooling(matches, expected, known is not None, certain),
        _normalisation(known.normalize if known else embedder.recipe.normalize, alone),
        *([_precision(best)] if certain else ()),
        *(_rest(best.variant, embedder) if certain else ()),
        *([_padding(padded)] if padded else []),
        *([_claim(endpoint, claimed, best.variant, certain, fitted)] if claimed else []),
    ]
    strategies = [Strategy(str(match.variant), match.mean, float(match.cosines.min())) for match in matches]
    served = {
        "pooling": best.variant.pooling if certain else None,
        "normalize": checks.is_unit(alone),
        "prompt": best.variant.prompt if certain else None,
        "skips_layers": best.variant.skips_head if certain else None,
        "pools_padding": padded is not None if certain else None,
        "cosine": best.mean,
        "dimension": alone.shape[1],
        "kind": endpoint.kind,
        "url": endpoint.url,
        "model": endpoint.model,
    }
    right = "the declared" if expected == embedder.recipe.checkpoint.pooling else "what the weights were trained with"
    verdict = _sentence(matches, preferred, model, certain, right, padded.variant if padded else None)
    return Report(model, declares(embedder.recipe), served, findings, strategies, verdict)


def _texts(embedder: Embedder) -> list[str]:
    """Return texts of many lengths that a server of this model does not cut either."""
    texts = readable(embedder, [text for text in neutral_texts() if len(text) <= _LONGEST])
    longest = max(embedder.recipe.prompts.values(), key=len, default="")
    encoded = embedder.encoder.tokenizer.encode(texts, prompt=longest)
    whole = [text for text, ids in zip(texts, encoded, strict=True) if ids.full_length <= embedder.recipe.max_tokens]
    return evenly_spread(whole, _TEXTS)


async def _pools_padding(
    embedder: Embedder, texts: Sequence[str], variant: Variant, ours: Vectors, together: Vectors
) -> Match | None:
    """Return how padding changes the vectors of texts that were sent together; None if it does not."""
    best = _ranked(await padded_variants(embedder, texts, variant), together, variant)[0]
    known = ~np.isnan(best.cosines)
    apart = 1 - float(cosines(ours, together)[known].mean())
    return best if apart > _APART and 1 - best.mean < apart / 2 else None


def _ranked(variants: Mapping[Variant, Vectors], theirs: Vectors, preferred: Variant) -> list[Match]:
    """Rank variants, the nearest first; of those that tie, the preferred one, then those most like it."""
    matches = [Match(variant, cosines(vectors, theirs)) for variant, vectors in variants.items()]
    matches.sort(key=lambda match: -match.mean)
    tied = [match for match in matches if match.mean >= matches[0].mean - _TIE] if matches else []

    def unlike(match: Match) -> tuple[bool, ...]:
        variant = match.variant
        return (
            variant.pooling != preferred.pooling,
            variant.prompt != preferred.prompt,
            variant.skips_head != preferred.skips_head,
            variant.pooling == "mean_sqrt_len",  # the mean, scaled
        )

    return sorted(tied, key=unlike) + matches[len(tied) :]


def _is_certain(matches: Sequence[Match]) -> bool:
    best = matches[0]
    if best.mean >= _CERTAIN:
        return True
    others = [match for match in matches if best.mean - match.mean > _TIE]
    nearer = [float((best.cosines > other.cosines).mean()) for other in others]
    return best.mean >= _POSSIBLE and min(nearer, default=1.0) >= _WINS


def _pooling(matches: Sequence[Match], expected: str | None, known: bool, certain: bool) -> Finding:
    best = matches[0]
    if not certain:
        return Finding(
            "pooling",
            "fault",
            f"no way to pool this model gives the server's vectors; the nearest, {best.variant}, has cosine "
            f"{_shown(best.mean)}",
            "see which model, which revision and which precision it serves",
        )
    seen = f"{best.variant.pooling} is applied"
    if expected is None:
        return Finding("pooling", "warning", f"{seen}; the checkpoint declares none", "see what its authors say")
    if best.variant.pooling == expected:
        return Finding("pooling", "ok", f"{seen}, as {'trained' if known else 'declared'}")
    of_expected = next((match.mean for match in matches if match.variant.pooling == expected), None)
    wanted = "these weights were trained with" if known else "the checkpoint declares"
    near = "" if of_expected is None else f", which is at {_shown(of_expected)}"
    return Finding(
        "pooling", "fault", f"{seen}; {wanted} {expected}{near}", f"set the server's pooling to {expected}"
    )


def _normalisation(declared: bool, vectors: Vectors) -> Finding:
    norms = checks.norms_of(vectors)
    if checks.is_unit(vectors) or not declared:
        return Finding("normalisation", "ok", norms)
    return Finding(
        "normalisation",
        "fault",
        f"{norms}, and they should be 1: an inner product ranks by length too",
        "normalise at the server, or compare by cosine",
    )


def _precision(best: Match) -> Finding:
    seen = f"cosine {_shown(best.mean)}, least {_shown(float(best.cosines.min()))}"
    least = float(best.cosines.min())
    if least >= _FLOAT32:
        return Finding("precision", "ok", f"{seen}: float32")
    if least >= _EXACT:
        return Finding("precision", "ok", f"{seen}: less than float32, as bf16 or fp16 leave it")
    if best.mean >= _CERTAIN:
        return Finding("precision", "ok", f"{seen}: less than float32, as a good int8 leaves it")
    return Finding(
        "precision",
        "warning",
        f"{seen}, as a coarse int8 leaves it, or weights that were trained further",
        "measure the search with it and with float32 before relying on it",
    )


def _rest(variant: Variant, embedder: Embedder) -> Iterator[Finding]:
    """Check the layers after pooling and the prompt, if there are any."""
    if embedder.recipe.head.layers:
        yield (
            Finding(
                "skipped layers",
                "fault",
                f"{embedder.recipe.head.spec} is declared and not applied",
                "serve it with software that follows modules.json",
            )
            if variant.skips_head
            else Finding("skipped layers", "ok", f"{embedder.recipe.head.spec} is applied")
        )
    if any(embedder.recipe.prompts.values()):
        wanted = repr(embedder.recipe.default_prompt) if embedder.recipe.default_prompt else "none"
        found = repr(variant.prompt) if variant.prompt else "none"
        yield (
            Finding("prompt", "ok", f"{found} is put before a text, as declared for texts of no role")
            if found == wanted
            else Finding(
                "prompt",
                "fault",
                f"the prompt put before a text is {found}, and the declared one {wanted}",
                "set it at the server, or put it before each text",
            )
        )


def _padding(match: Match) -> Finding:
    return Finding(
        "padding",
        "fault",
        f"texts that are sent together get other vectors than alone: {match.variant}, cosine {_shown(match.mean)}",
        "pool under the attention mask; until then send each text alone",
    )


def _claim(endpoint: Endpoint, claimed: str, variant: Variant, certain: bool, fitted: bool) -> Finding:
    """Check what the server says of itself against its vectors."""
    seen = f"its /info says {claimed} for model {endpoint.model!r}"
    if fitted and not certain:
        return Finding(
            "told",
            "warning",
            f"{seen}, which has parameters of its own and cannot be told from here",
            f"let the server examine itself: GET {endpoint.url.removesuffix('embed')}doctor",
        )
    if certain and (claimed == variant.pooling or {claimed, variant.pooling} <= {"mean", "mean_sqrt_len"}):
        return Finding("told", "ok", f"{seen}, which its vectors are")
    found = variant.pooling if certain else "of no pooling of this model"
    return Finding("told", "fault", f"{seen}, and its vectors are {found}", "restart it with its own config")


def _sentence(
    matches: Sequence[Match], preferred: Variant, model: str, certain: bool, right: str, padded: Variant | None
) -> str:
    best = matches[0]
    if not certain:
        return (
            f"No pooling of {model} gives this server's vectors: it serves another model, another precision or a "
            f"fitted pooling, and the nearest, {best.variant}, has cosine {_shown(best.mean)}."
        )
    also = "" if best.mean >= _EXACT else "; its precision lets it come no nearer"
    also += f"; but texts sent together are pooled with {padded}" if padded else ""
    if not preferred.pooling:
        return f"This server applies {best.variant}, where nothing is declared: cosine {_shown(best.mean)}{also}."
    if replace(best.variant, padding="") == preferred:
        return f"This server applies {best.variant}, as it should: cosine {_shown(best.mean)}{also}."
    wanted = next((match for match in matches if match.variant == preferred), None)
    against = f", {_shown(wanted.mean)} to {preferred}" if wanted else ""
    return (
        f"This server applies {best.variant}, not {preferred} ({right}): cosine {_shown(best.mean)} to {best.variant}"
        f"{against}{also}."
    )


def _shown(cosine: float) -> str:
    return f"{cosine:.4f}" if cosine > 0.9 else f"{cosine:.2f}"
