"""Advice on which strategy to use: one choice and one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.evaluation.comparison import Comparison


@dataclass(frozen=True)
class Advice:
    """Which strategy to use.

    Args:
        strategy: its name.
        sentence: the advice, with its reason.
        fit: whether it is worthwhile to fit a learned pooling.
    """

    strategy: str
    sentence: str
    fit: bool = False


def advise(
    fixed: Sequence[str], learned: Sequence[str], comparisons: Sequence[Comparison], declared: str | None = None
) -> Advice:
    """Choose a strategy.

    A strategy is better than another if it is so beyond noise on some data set, and worse beyond noise on none. The
    declared strategy is kept unless a fixed one is better. Without a declaration, the choice is the fixed strategy of
    the highest mean score, or the simplest that equals it within noise. A learned strategy must be better than that
    choice *and* than the highest fixed one. If there is neither a declaration nor a learned strategy, the encoder
    was not trained for any pooling, and fitting one is advised.

    Args:
        fixed: strategies without fitted weights, simpler ones first.
        learned: strategies with fitted weights, at least one if none is fixed.
        comparisons: of all of them, one per data set.
        declared: the strategy that the checkpoint declares, if any.
    """

    def score(name: str) -> float:
        return _mean_score(name, comparisons)

    fixed = fixed or learned[:1]
    highest = max(fixed, key=score)
    if declared is not None:
        base = max((name for name in fixed if _better(name, declared, comparisons)), key=score, default=declared)
    else:
        base = next(name for name in fixed if name == highest or _equal(name, highest, comparisons))
    if better := [name for name in learned if all(_better(name, other, comparisons) for other in {base, highest})]:
        choice = max(better, key=score)
        return Advice(choice, f"Use {choice}: {_gain(choice, highest, comparisons)}, beyond noise.")
    if declared is None:
        why = "no other fixed pooling scores higher" if base == highest else f"{highest} scores higher within noise"
        if learned:
            return Advice(base, f"Use {base}: {why}, and no learned one is better beyond noise.")
        fit = "the checkpoint declares no pooling, so one that is fitted to your data is likely to be better"
        return Advice(base, f"Use {base} for now: {why}, but {fit}.", fit=True)
    if base != declared:
        return Advice(base, f"Use {base}: {_gain(base, declared, comparisons)}, beyond noise.")
    return Advice(base, f"Keep {base}, which the checkpoint declares: no other pooling is better beyond noise.")


def advise_spans(
    whole: Sequence[str], spans: Sequence[str], comparisons: Sequence[Comparison], declared: str | None = None
) -> Advice:
    """Choose between searching whole documents and spans, which are more expensive: each needs a vector.

    The base is the declared strategy over whole documents, or without a declaration the highest one over whole
    documents. It is kept unless another is better. Spans must also be better than every strategy over whole
    documents that is better than the base.

    Args:
        whole: strategies over whole documents, at least one.
        spans: strategies over spans.
        comparisons: of all of them, one per data set.
        declared: the strategy that the checkpoint declares, one of `whole`.
    """

    def score(name: str) -> float:
        return _mean_score(name, comparisons)

    base = choice = declared or max(whole, key=score)
    sentence = f"Keep {base} over whole documents: nothing else is better beyond noise"
    if better := [name for name in (*whole, *spans) if _better(name, base, comparisons)]:
        highest = max(better, key=score)
        as_good = [name for name in whole if name in better and _equal(name, highest, comparisons)]
        choice = max(as_good, key=score, default=highest)
        over = "whole documents" if choice in whole else "spans"
        sentence = f"Use {choice} over {over}: {_gain(choice, base, comparisons)}, beyond noise"
    equal = [name for name in (*whole, *spans) if name != choice and _equal(name, choice, comparisons)]
    return Advice(choice, sentence + (f". Within noise of it: {'; '.join(equal)}." if equal else "."))


def advise_reranking(choice: str, anew: str, depth: int, comparisons: Sequence[Comparison]) -> str:
    """Say whether to re-rank what the chosen strategy finds, as a sentence that follows the advice.

    Args:
        choice: the strategy.
        anew: the name of its re-ranked rankings.
        depth: how many documents were scored anew.
        comparisons: of both, one per data set.
    """
    search = f'"rerank": {{"by": "maxsim", "depth": {depth}}}'
    if _better(anew, choice, comparisons):
        return f" Search with {search}: {_gain(anew, choice, comparisons)} alone, beyond noise."
    return f" A search with {search} is not better beyond noise."


def _mean_score(name: str, comparisons: Sequence[Comparison]) -> float:
    return float(np.mean([comparison.score(name) for comparison in comparisons]))


def _verdicts(name: str, other: str, comparisons: Sequence[Comparison]) -> set[str]:
    return {comparison.against(other)[name].verdict for comparison in comparisons}


def _better(name: str, other: str, comparisons: Sequence[Comparison]) -> bool:
    verdicts = _verdicts(name, other, comparisons)
    return "better" in verdicts and "worse" not in verdicts


def _equal(name: str, other: str, comparisons: Sequence[Comparison]) -> bool:
    return _verdicts(name, other, comparisons) == {"within noise"}


def _gain(name: str, other: str, comparisons: Sequence[Comparison]) -> str:
    """Describe where it is better, as in `67.10 against 53.06 (spearman) of weighted_mean`."""
    gains = [
        f"{100 * comparison.score(name):.2f} against {100 * comparison.score(other):.2f} ({comparison.metrics[0]})"
        for comparison in comparisons
        if comparison.against(other)[name].verdict == "better"
    ]
    return f"{', '.join(gains)} of {other}"
