"""How much of the scores is left when texts are perturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pooling.tasks import Task
from pooling.tasks.similarity import cosines
from pooling.tasks.task import Indices
from service.arrays import Vectors
from service.embedding.perturbations import Spans
from service.evaluation.encoding import Advance, Encoding
from service.evaluation.perturbations import PERTURBATIONS, Perturbation, perturb
from service.evaluation.report import Perturbed

VERSIONS: Final = 1 + len(PERTURBATIONS)
"""How often each text is embedded."""


def measure(
    encoding: Encoding, task: Task, chosen: Indices, vectors: Sequence[Sequence[Vectors]], advance: Advance
) -> list[dict[str, list[Perturbed]]]:
    """Measure what is left of the scores of some items.

    Args:
        encoding: embeds the perturbed texts.
        task: the data set.
        chosen: indices of the items.
        vectors: for each strategy, those of each part of the task.
        advance: called with the number of further texts that are embedded, each of those that are perturbed
            `VERSIONS` times, and with 0 after each strategy.

    Returns:
        For each strategy and kind of perturbation, the results in ascending levels.
    """
    part = task.perturbable(chosen)
    spans = encoding.spans(part.texts)
    perturbed = (_perturbed(encoding, part.texts, spans, each) for each in PERTURBATIONS)
    versions = [encoding.few_vectors(replace(part, texts=texts), advance) for texts in (part.texts, *perturbed)]
    found = []
    for parts, own in zip(vectors, zip(*versions, strict=True), strict=True):
        whole, *scores = task.score(task.perturbed_outcomes(chosen, own, parts), chosen)[:, 0].tolist()
        kinds: dict[str, list[Perturbed]] = {}
        for perturbation, after, score in zip(PERTURBATIONS, own[1:], scores, strict=True):
            cosine = float(cosines(own[0], after).mean())
            kinds.setdefault(perturbation.kind, []).append(
                Perturbed(perturbation.level, score, whole - score, cosine)
            )
        found.append(kinds)
        advance(0)
    return found


def _perturbed(
    encoding: Encoding, texts: Sequence[str], spans: Sequence[Spans], perturbation: Perturbation
) -> list[str]:
    """Perturb texts; one of which no token would be left stays unchanged."""
    after = perturb(texts, spans, perturbation)
    return [new if left else old for old, new, left in zip(texts, after, encoding.spans(after), strict=True)]
