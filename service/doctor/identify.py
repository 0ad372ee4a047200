"""Which pooling a server of any kind is really applying, told from its vectors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.doctor import checks
from service.doctor.endpoint import Endpoint, EndpointError
from service.doctor.examine import at_even_distances, declares, neutral_texts, readable
from service.doctor.findings import Finding, Report, Strategy
from service.doctor.published import published
from service.doctor.strategies import cosines
from service.doctor.ways import Way, padded_ways, ways_of
from service.embedding.embedder import Embedder

_TEXTS: Final = 12
_LONGEST: Final = 300
"""Characters of a text."""
_EXACT: Final = 0.9999
_CERTAIN: Final = 0.99
"""A cosine that int8 on a good server keeps, and no wrong pooling reaches without others being nearer still."""
_POSSIBLE: Final = 0.9
"""The least that a coarse int8 leaves; believed where no other way is nearer for nearly all texts."""
_WINS: Final = 0.9
_TIE: Final = 1e-4
_SPOILED: Final = 0.001
"""How far from the right ones vectors are with padding pooled; they are also nearer to what that gives."""


@dataclass(frozen=True, slots=True)
class Match:
    """A way, and the cosine of each text's vector under it with the server's."""

    way: Way
    cosines: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over all texts for which it is known."""
        return float(np.nanmean(self.cosines))


async def identify(
    embedder: Embedder, endpoint: Endpoint, model: str, progress: Callable[[str], object] = lambda stage: None
) -> Report:
    """Compare a server's vectors with ours under every strategy, with and without prompts, layers and padding.

    Args:
        embedder: the model that the server is said to serve, as its checkpoint declares it.
        endpoint: the server.
        model: what the report calls the model.
        progress: told what is being done.

    Raises:
        EndpointError: the server fails, or gives vectors of a size that no way gives.

    """
    known = published(embedder.encoder.checkpoint)
    expected = known.pooling if known else embedder.encoder.checkpoint.pooling
    texts = _texts(embedder)
    progress(f"asking {endpoint.url}")
    alone = np.concatenate([await endpoint.embed([text]) for text in texts])
    together = await endpoint.embed(texts)
    progress("comparing with every strategy")
    ours = await ways_of(embedder, texts)
    fitting = {way: vectors for way, vectors in ours.items() if vectors.shape[1] == alone.shape[1]}
    if not fitting:
        sizes = ", ".join(map(str, sorted({vectors.shape[1] for vectors in ours.values()})))
        raise EndpointError(
            f"{endpoint.url} gives vectors of {alone.shape[1]} dimensions, and {model} gives {sizes}: it serves "
            "another model. Name the one that it serves."
        )
    preferred = Way(expected or "", embedder.default_prompt)
    matches = _ranked(fitting, alone, preferred)
    best = matches[0]
    told = endpoint.told.get("pooling")
    # A pooling with parameters of its own may be near one without; only what is the same is taken for it.
    fitted = told is not None and all(way.pooling != told for way in ours)
    certain = best.mean >= _EXACT if fitted else _is_certain(matches)
    padded = await _pools_padding(embedder, texts, best.way, fitting[best.way], together) if certain else None
    findings = [
        _pooling(matches, expected, known is not None, certain),
        _normalisation(known.normalize if known else embedder.normalize, alone),
        *([_precision(best)] if certain else ()),
        *(_rest(best.way, embedder) if certain else ()),
        *([_padding(padded)] if padded else []),
        *([_told(endpoint, told, best.way, certain, fitted)] if told else []),
    ]
    strategies = [Strategy(str(match.way), match.mean, float(match.cosines.min())) for match in matches]
    served = {
        "pooling": best.way.pooling if certain else None,
        "normalize": checks.is_unit(alone),
        "prompt": best.way.prompt if certain else None,
        "skips_layers": best.way.skips_head if certain else None,
        "pools_padding": padded is not None if certain else None,
        "cosine": best.mean,
        "dimension": alone.shape[1],
        "kind": endpoint.kind,
        "url": endpoint.url,
        "model": endpoint.model,
    }
    right = "the declared" if expected == embedder.recipe.checkpoint.pooling else "what the weights were trained with"
    verdict = _sentence(matches, preferred, model, certain, right, padded.way if padded else None)
    return Report(model, declares(embedder.recipe), served, findings, strategies, verdict)


def _texts(embedder: Embedder) -> list[str]:
    """Texts of many lengths that neither we nor a server with the same model cut."""
    texts = readable(embedder, [text for text in neutral_texts() if len(text) <= _LONGEST])
    longest = max(embedder.prompts.values(), key=len, default="")
    encoded = embedder.encoder.tokenizer.encode(texts, prompt=longest)
    whole = [text for text, ids in zip(texts, encoded, strict=True) if ids.full_length <= embedder.max_tokens]
    return at_even_distances(whole, _TEXTS)


async def _pools_padding(
    embedder: Embedder, texts: Sequence[str], way: Way, ours: Vectors, together: Vectors
) -> Match | None:
    """The way in which padding spoils the vectors of texts that were sent together; None where it does not."""
    best = _ranked(await padded_ways(embedder, texts, way), together, way)[0]
    known = ~np.isnan(best.cosines)
    apart = 1 - float(cosines(ours, together)[known].mean())
    return best if apart > _SPOILED and 1 - best.mean < apart / 2 else None


def _ranked(ways: Mapping[Way, Vectors], theirs: Vectors, preferred: Way) -> list[Match]:
    """The nearest first; of those that give the same directions, the preferred one, then those most like it."""
    matches = [Match(way, cosines(vectors, theirs)) for way, vectors in ways.items()]
    matches.sort(key=lambda match: -match.mean)
    tied = [match for match in matches if match.mean >= matches[0].mean - _TIE] if matches else []

    def unlike(match: Match) -> tuple[bool, ...]:
        way = match.way
        return (
            way.pooling != preferred.pooling,
            way.prompt != preferred.prompt,
            way.skips_head != preferred.skips_head,
            way.pooling == "mean_sqrt_len",  # the mean at another length
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
            f"no way to pool this model gives the server's vectors; the nearest, {best.way}, has cosine "
            f"{_shown(best.mean)}",
            "see which model, which revision and which precision it serves",
        )
    seen = f"{best.way.pooling} is applied"
    if expected is None:
        return Finding("pooling", "warning", f"{seen}; the checkpoint declares none", "see what its authors say")
    if best.way.pooling == expected:
        return Finding("pooling", "ok", f"{seen}, as {'trained' if known else 'declared'}")
    rest = next((match.mean for match in matches if match.way.pooling == expected), None)
    wanted = "these weights were trained with" if known else "the checkpoint declares"
    near = "" if rest is None else f", which is at {_shown(rest)}"
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
    if best.mean >= _EXACT:
        return Finding("precision", "ok", f"{seen}: float32, or as good as that")
    if best.mean >= _CERTAIN:
        return Finding("precision", "ok", f"{seen}, as bf16 or a good int8 leave it")
    return Finding(
        "precision",
        "warning",
        f"{seen}, as a coarse int8 leaves it, or weights that were trained further",
        "measure the search with it and with float32 before relying on it",
    )


def _rest(way: Way, embedder: Embedder) -> Iterator[Finding]:
    """The layers and the prompt, where there are any."""
    if embedder.recipe.head.layers:
        yield (
            Finding(
                "skipped layers",
                "fault",
                f"{embedder.recipe.head.spec} is declared and not applied",
                "serve it with software that follows modules.json",
            )
            if way.skips_head
            else Finding("skipped layers", "ok", f"{embedder.recipe.head.spec} is applied")
        )
    if any(embedder.prompts.values()):
        wanted = repr(embedder.default_prompt) if embedder.default_prompt else "none"
        found = repr(way.prompt) if way.prompt else "none"
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
        f"texts that are sent together get other vectors than alone: {match.way}, cosine {_shown(match.mean)}",
        "pool under the attention mask; until then send each text alone",
    )


def _told(endpoint: Endpoint, told: str, way: Way, certain: bool, fitted: bool) -> Finding:
    """Whether the vectors are what the server says of itself."""
    seen = f"its /info says {told} for model {endpoint.model!r}"
    if fitted and not certain:
        return Finding(
            "told",
            "warning",
            f"{seen}, which has parameters of its own and cannot be told from here",
            f"let the server examine itself: GET {endpoint.url.removesuffix('embed')}doctor",
        )
    if certain and (told == way.pooling or {told, way.pooling} <= {"mean", "mean_sqrt_len"}):
        return Finding("told", "ok", f"{seen}, which its vectors are")
    found = way.pooling if certain else "of no pooling of this model"
    return Finding("told", "fault", f"{seen}, and its vectors are {found}", "restart it with its own config")


def _sentence(
    matches: Sequence[Match], preferred: Way, model: str, certain: bool, right: str, padded: Way | None
) -> str:
    best = matches[0]
    if not certain:
        return (
            f"No pooling of {model} gives this server's vectors: it serves another model, another precision or a "
            f"fitted pooling, and the nearest, {best.way}, has cosine {_shown(best.mean)}."
        )
    also = "" if best.mean >= _EXACT else "; its precision lets it come no nearer"
    also += f"; but texts sent together are pooled with {padded}" if padded else ""
    if not preferred.pooling:
        return f"This server applies {best.way}, where nothing is declared: cosine {_shown(best.mean)}{also}."
    if replace(best.way, padding="") == preferred:
        return f"This server applies {best.way}, as it should: cosine {_shown(best.mean)}{also}."
    wanted = next((match for match in matches if match.way == preferred), None)
    against = f", {_shown(wanted.mean)} to {preferred}" if wanted else ""
    return (
        f"This server applies {best.way}, not {preferred} ({right}): cosine {_shown(best.mean)} to {best.way}"
        f"{against}{also}."
    )


def _shown(cosine: float) -> str:
    return f"{cosine:.4f}" if cosine > 0.9 else f"{cosine:.2f}"
