"""Checks for the usual mistakes. Each turns a measurement into a finding."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from service.arrays import Vectors
from service.checkpoint import Checkpoint, UnknownModule, quoted_prompts
from service.doctor.findings import Finding, Strategy
from service.doctor.published import Published, sum_of
from service.doctor.strategies import cosines
from service.embedding.prompts import role_prompts, without_prompt
from service.embedding.recipe import Recipe
from service.encoder import TokenizedText, Trial
from service.encoder.quantization import Agreement
from service.similarity import COSINE, SIMILARITIES

TOLERANCE: Final = 1e-5
"""Largest difference that float32 rounding explains, for values up to 1."""
_LEAST_COSINE: Final = {"fp32": 0.99999, "fp16": 0.999, "bf16": 0.99, "int8": 0.9}
_UNIT: Final = 1e-3
"""Largest distance from 1 of the norm of a normalised vector: bf16 has three digits."""
_MANY: Final = 0.05
"""Share of truncated texts from which truncation is a fault."""
_SPARSE: Final = "big_bird"
_FULL: Final = "original_full"
_MODULE_FOLDER: Final = re.compile(r"\d+_(Dense|LayerNorm)")


def weights(checkpoint: Checkpoint, known: Published | None) -> Finding:
    """Report whether it is known how the weights were trained."""
    if known is None:
        return Finding("weights", "ok", "not among those known by their sum: only evidence tells what they want")
    normalised = "normalised" if known.normalize else "not normalised"
    return Finding(
        "weights",
        "ok",
        f"those of {known.name} (sha256 {sum_of(checkpoint)[:12]}...), trained with {known.pooling}, {normalised}",
    )


def modules(checkpoint: Checkpoint, unknown: Sequence[UnknownModule]) -> list[Finding]:
    """Report the modules that cannot be followed."""
    if not unknown:
        known = [
            *(["Transformer"] if checkpoint.table is None else ["StaticEmbedding"]),
            *(["WeightedLayerPooling"] if checkpoint.layers else []),
            *(each.kind for each in checkpoint.of_tokens),
            *(["Pooling"] if checkpoint.pooling and checkpoint.table is None else []),
            *(each.kind for each in checkpoint.head),
        ]
        return [Finding("modules", "ok", f"{' > '.join(known)}: all are followed")]
    return [
        Finding(
            "unknown module",
            "fault",
            f"modules.json has {error.module!r} in place {error.place}, which cannot be followed here: without it "
            "vectors are wrong, so the folder is refused; what else is said here is about the folder without it",
            "take it out of modules.json if the weights were trained without it, else serve them with the software "
            "that knows it",
        )
        for error in unknown
    ]


def pooling(recipe: Recipe, known: Published | None, strategies: Mapping[str, Strategy]) -> Finding:
    """Compare the pooling served with the one the weights were trained with if known, else with the one declared."""
    served, declared = recipe.pooler.spec, recipe.checkpoint.pooling
    if known and served != known.pooling:
        return Finding(
            "pooling",
            "fault",
            f"{served} is served{' as declared' if served == declared else ''}, and these weights were trained with "
            f"{known.pooling}{_apart(strategies, served)}",
            f"declare {known.pooling} in the config.json of the Pooling module"
            if declared != known.pooling
            else "leave `pooling` out of the config: what the checkpoint declares is right",
        )
    if declared is None:
        return Finding(
            "pooling",
            "warning",
            f"the checkpoint declares none, and the config has to choose; {served} is taken here",
            "choose by the evidence below, and by what its authors say",
        )
    if served != declared:
        if recipe.pooler.learned and recipe.pooler.trained:
            return Finding("pooling", "ok", f"{served}, fitted, in place of the declared {declared}")
        return Finding(
            "pooling",
            "warning" if _is_worse(strategies.get(declared)) else "fault",
            f"{served} is served, and the checkpoint declares {declared}{_apart(strategies, served)}",
            "leave `pooling` out of the config to follow the checkpoint",
        )
    return Finding("pooling", "ok", f"{served}, as declared" + (" and as trained" if known else ""))


def agreement(ours: Vectors, theirs: Vectors, precision: str, config: Mapping[str, Any]) -> Finding:
    """Compare the service's vectors of some texts with those of sentence-transformers, for the model as declared."""
    against = f"sentence-transformers {version('sentence-transformers')}"
    if ours.shape != theirs.shape:
        return Finding(
            "agreement",
            "fault",
            f"vectors have {ours.shape[1]} dimensions and those of {against} {theirs.shape[1]}",
            "this is a bug in Millpond: please report it with the model's name",
        )
    same, apart = _differences(theirs, ours, precision)
    seen = f"{len(ours)} texts, {precision}, against {against}: {apart}"
    if same:
        return Finding("agreement", "ok", seen)
    if config.get("model_type") == _SPARSE and config.get("attention_type") != _FULL:
        return Finding(
            "agreement",
            "warning",
            f"{seen}; Millpond runs {_SPARSE} with {_FULL} attention on purpose, since with its sparse attention a "
            "text's vector depends on what is embedded before it and beside it",
            f'set "attention_type": "{_FULL}" in config.json to have the same vectors everywhere',
        )
    return Finding(
        "agreement",
        "fault",
        seen,
        "try runtime.backend: torch, and report it with the model's name"
        if precision == "fp32"
        else "serve it with runtime.precision: fp32",
    )


def precision(served: str, found: Agreement | None) -> Finding:
    """Report how near the precision served is to float32, as measured on packaged texts when it was loaded."""
    if served == "fp32":
        return Finding("precision", "ok", "fp32: nothing is rounded")
    if found is None:
        return Finding(
            "precision",
            "warning",
            f"{served}, and how near it is to float32 was not measured",
            "compare a search in it with one in runtime.precision: fp32",
        )
    return Finding(
        "precision",
        "ok",
        f"{served}: on {found.texts} texts, mean cosine {found.mean_cosine:.4f} to float32, least "
        f"{found.least_cosine:.4f}; {found.neighbours:.0%} of the five nearest neighbours stay",
    )


def trial(found: Trial) -> Finding:
    """Report the trial that the encoder passed before it was served."""
    if found.not_finite:
        seen = f"{found.not_finite} holds NaN or infinity, and texts that need it fail"
        return Finding("trial", "fault", f"{seen}; {found}", "get the file anew")
    apart = "; it reads padding, so only texts of equal length share a pass" if found.equal_lengths else ""
    return Finding("trial", "ok", f"{found}{apart}")


def padding(alone: Vectors, beside: Vectors, precision: str, pooled: str) -> Finding:
    """Check that the other texts in a batch do not change a vector."""
    same, apart = _differences(alone, beside, precision)
    seen = f"alone and beside a longer text: {apart}"
    if same:
        return Finding("padding", "ok", seen)
    mistake = "the last position is taken for the last token" if "last" in pooled else "padding is pooled"
    return Finding("padding", "fault", f"{seen}; {mistake}", "this is a bug in Millpond: please report it")


def normalisation(recipe: Recipe, known: Published | None, vectors: Vectors) -> Finding:
    """Check whether vectors may be compared by inner product."""
    norms, similarity = norms_of(vectors), recipe.checkpoint.similarity
    meant = known.normalize if known else recipe.head.normalize
    by_length = "an inner product ranks by length too"
    if is_unit(vectors):
        if recipe.normalize and recipe.checkpoint.pooling and not meant:
            return Finding(
                "normalisation",
                "warning",
                f"{norms}: the config normalises and the checkpoint does not; it may have been trained for lengths",
                "leave `normalize` out of the config to follow the checkpoint",
            )
        return Finding("normalisation", "ok", f"{norms}: inner product and cosine are the same")
    if meant and not recipe.normalize:
        wanted = "these weights were trained to give" if known else "the checkpoint declares"
        return Finding(
            "normalisation",
            "fault",
            f"{norms}, and {wanted} normalised vectors: {by_length}",
            "leave `normalize` out of the config"
            if recipe.head.normalize
            else "put a Normalize module at the end of modules.json, or set `normalize: true` in the config",
        )
    if similarity != COSINE.name:
        return Finding("normalisation", "ok", f"{norms}: lengths count, and {similarity} is the declared similarity")
    return Finding(
        "normalisation",
        "warning",
        f"{norms}: {by_length}",
        "unless it was trained for that, set `normalize: true` or compare by cosine, as Millpond's collections do",
    )


def similarity(recipe: Recipe) -> list[Finding]:
    """Check that collections can be searched by the similarity that is declared, if it is not cosine."""
    declared = recipe.checkpoint.similarity
    if declared == COSINE.name:
        return []
    if declared in SIMILARITIES:
        return [Finding("similarity", "ok", f"{declared} is declared, and new collections are searched by it")]
    return [
        Finding(
            "similarity",
            "warning",
            f"{declared} is declared, by which collections are not searched",
            f"create them with another `similarity`, {', '.join(SIMILARITIES)}, and see whether its order will do",
        )
    ]


def head(recipe: Recipe, skipped: float | None) -> Finding:
    """Check that no layer after pooling is skipped; `skipped` is the cosine to vectors without declared layers."""
    checkpoint = recipe.checkpoint
    followed = {module.folder.name for module in (*checkpoint.of_tokens, *checkpoint.head)}
    left_out = sorted(
        item.name
        for item in checkpoint.folder.iterdir()
        if _MODULE_FOLDER.fullmatch(item.name) and item.name not in followed and (item / "config.json").exists()
    )
    if left_out:
        return Finding(
            "skipped layers",
            "fault",
            f"the folder holds {', '.join(left_out)}, which modules.json does not list, so nothing applies it",
            "list it in modules.json if the weights were trained with it, else remove it",
        )
    if not recipe.head.layers:
        return Finding("skipped layers", "ok", "no layers follow the pooling")
    without = "of another size" if skipped is None else f"at cosine {skipped:.2f} to the right ones"
    return Finding("skipped layers", "ok", f"{recipe.head.spec} is applied; vectors without it would be {without}")


def prompt(recipe: Recipe, unprompted: float | None) -> Finding:
    """Check that declared prompts are served; `unprompted` is the cosine of vectors with and without a prompt."""
    checkpoint = recipe.checkpoint
    declared = {name: text for name, text in checkpoint.prompts.items() if text}
    served = set(recipe.prompts.values())
    missing = [name for name, text in declared.items() if not recipe.prompts.get(name) and text not in served]
    changed = [name for name, text in declared.items() if recipe.prompts.get(name, text) not in (text, "")]
    shown = ", ".join(f"{name} {text!r}" for name, text in declared.items())
    worth = "" if unprompted is None else f"; a text with it and without it has cosine {unprompted:.2f}"
    if missing or changed:
        done = f"leaves out {', '.join(missing)}" if missing else f"has another text for {', '.join(changed)}"
        return Finding(
            "prompt",
            "fault" if missing else "warning",
            f"declared are {shown}, and the config {done}{worth}",
            "leave `prompts` out of the config, or repeat the declared ones there",
        )
    if declared:
        of_role = role_prompts(recipe.prompts)
        if not of_role:
            return Finding(
                "prompt",
                "warning",
                f"{shown}; none of these names is a usual one for queries or documents, so collections and searches "
                f"use none{worth}",
                "set `prompts` in the config with the names query and document",
            )
        default = f"{recipe.default_prompt!r} by default" if recipe.default_prompt else "by default none"
        roles = " and ".join(f"{role} {of_role.get(role, 'none')!r}" for role in ("query", "document"))
        seen = f"{shown}; {default}, by role {roles}, the others by prompt_name{worth}"
        if unused := without_prompt(recipe.prompts, recipe.default_prompt):
            role, names = unused
            return Finding(
                "prompt",
                "warning",
                f"{seen}; no role uses {', '.join(names)}",
                f"if one is meant as the {role} prompt, set `prompts` in the config with the name {role}",
            )
        return Finding("prompt", "ok", seen)
    if not any(recipe.prompts.values()) and (quoted := quoted_prompts(checkpoint.folder)):
        return Finding(
            "prompt",
            "warning",
            f"none is declared, and the README speaks of {', '.join(map(repr, quoted))}",
            "set `prompts` in the config, such as {query: 'query: ', document: 'passage: '}",
        )
    return Finding("prompt", "ok", "none is declared")


def truncation(lengths: Sequence[int], limit: int, given: bool) -> Finding:
    """Count the texts that have more tokens than the model takes; `given` ones are like those to be served."""
    long = sum(length > limit for length in lengths)
    share = long / len(lengths)
    seen = f"{share:.1%} of {len(lengths)} {'texts' if given else 'packaged texts'} ({long}) are longer than "
    seen += f"{limit} tokens; the longest has {max(lengths)}"
    if not long:
        return Finding("truncation", "ok", seen)
    return Finding(
        "truncation",
        "fault" if given and share >= _MANY else "warning",
        seen,
        "split such texts: Millpond refuses them unless `truncate` is given, other servers cut them in silence",
    )


def unknown_tokens(texts: Sequence[TokenizedText], unknown_id: int | None, given: bool) -> list[Finding]:
    """Warn where some of the texts that were given have words or characters that the tokenizer does not know."""
    counts = [int((text.ids == unknown_id).sum()) for text in texts] if unknown_id is not None else []
    if not given or not any(counts):
        return []
    return [
        Finding(
            "unknown words",
            "warning",
            f"{sum(counts)} words or characters in {sum(map(bool, counts))} of the {len(texts)} texts are unknown to "
            "the tokenizer and read as one and the same token",
            "choose a model of the language of these texts; split words with more characters than it takes (100, as "
            "a rule)",
        )
    ]


def evidence(served: str, expected: str, strategies: Sequence[Strategy]) -> Finding:
    """Report whether another pooling, preferably the expected one, tells meaning from wording clearly better."""
    of = {each.pooling: each.evidence for each in strategies if each.evidence}
    best = expected if of[expected].better else max(of, key=lambda name: of[name].auc)
    seen = f"{served} tells paraphrases from look-alikes with AUC {of[served].auc:.3f}"
    if not of[best].better:
        return Finding("evidence", "ok", f"{seen}; no other strategy is clearly better")
    low, high = of[best].interval
    return Finding(
        "evidence",
        "warning",
        f"{seen}, {best} with {of[best].auc:.3f}: better by {of[best].gain:.3f} (from {low:.3f} to {high:.3f})",
        f"see what the authors trained it with; `pooling: {best}` serves the better one",
    )


def is_unit(vectors: Vectors) -> bool:
    """Return whether all vectors (texts, dim) have norm 1."""
    return bool(np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= _UNIT)


def norms_of(vectors: Vectors) -> str:
    """Describe the range of the norms."""
    norms = np.linalg.norm(vectors, axis=1)
    return f"norms from {norms.min():.3f} to {norms.max():.3f}"


def _differences(right: Vectors, others: Vectors, precision: str) -> tuple[bool, str]:
    """Return whether rounding explains the differences of vectors, and their description."""
    difference, least = float(np.abs(right - others).max()), float(cosines(right, others).min())
    near = precision != "fp32" or difference <= TOLERANCE * max(1.0, float(np.abs(right).max()))
    shown = f"largest difference {difference:.1e}, least cosine {least:.6f}"
    return near and least >= _LEAST_COSINE[precision], shown


def _apart(strategies: Mapping[str, Strategy], other: str) -> str:
    return f"; the cosine between the two is {strategies[other].cosine:.2f}" if other in strategies else ""


def _is_worse(strategy: Strategy | None) -> bool:
    """Return whether the evidence is significantly against a pooling."""
    return strategy is not None and strategy.evidence is not None and strategy.evidence.interval[1] < 0
