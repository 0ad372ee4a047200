"""What a cross-encoder declares: a sequence classifier, and what its scores go through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from service.checkpoint.checkpoint import CROSS_ENCODER, Checkpoint, UnknownModule, bare, checked
from service.checkpoint.declarations import (
    SPLADE_POOLING,
    TRANSFORMER_CONFIGS,
    ClassifierSettings,
    ModelSettings,
    read_modules,
)
from service.errors import CheckpointError

_CLASSIFIER: Final = "ForSequenceClassification"
_SAVED: Final = "config_sentence_transformers.json"
_SIGMOID, _IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class CrossEncoder:
    """A sequence classifier of texts or pairs of texts.

    Args:
        checkpoint: its folder.
        activation: the dotted name of what its scores go through, as sentence-transformers has it.
        labels: the names of its scores, in order.
    """

    checkpoint: Checkpoint
    activation: str
    labels: tuple[str, ...]


def read_cross_encoder(name: str, revision: str | None = None) -> CrossEncoder:
    """Find a cross-encoder and read all that it declares; its weights are not loaded.

    Both the folders of sentence-transformers and plain ones of transformers are read.

    Args:
        name: `bundled/NAME`, a folder, or a Hugging Face id.
        revision: commit, tag or branch, for a Hugging Face id only.

    Raises:
        CheckpointError: missing, damaged, without whole safetensors, no sequence classifier, or declaring what is not
            known here.
    """
    found = bare(name, revision)
    folder, config = found.folder, found.config
    modules = read_modules(folder / "modules.json")
    saved = ModelSettings.read(folder / _SAVED)
    _check_kind(found, [module.kind for module in modules], saved)
    for place, module in enumerate(modules[1:], 1):
        raise UnknownModule(
            f"{folder / 'modules.json'}: module {module.type!r} ({module.path!r}) makes scores in a way that is not "
            f"followed here: served are those of a transformer {_CLASSIFIER} alone. Choose another model.",
            place=place,
            module=module.type,
        )
    if saved.default_prompt_name and (saved.prompts or {}).get(saved.default_prompt_name):
        raise CheckpointError(
            f"{folder / _SAVED}: puts the prompt {saved.default_prompt_name!r} before texts, which is not done for "
            "pairs here. Choose another model."
        )
    given = (found.transformer / each for each in TRANSFORMER_CONFIGS if (found.transformer / each).exists())
    texts = ClassifierSettings.read(next(given, found.transformer / TRANSFORMER_CONFIGS[0]))
    labels = _labels(found.transformer / "config.json", config)
    checkpoint = checked(replace(found, max_tokens=texts.max_tokens, lower_case=texts.do_lower_case))
    return CrossEncoder(checkpoint, _activation(saved, config, labels), labels)


def _check_kind(found: Checkpoint, modules: list[str], saved: ModelSettings) -> None:
    """Refuse what is no sequence classifier, and say where it belongs."""
    architectures = found.config.get("architectures") or []
    generates = any(name.endswith(("ForCausalLM", "ForConditionalGeneration")) for name in architectures)
    if "LogitScore" in modules or (generates and saved.model_type in (None, CROSS_ENCODER) and not modules[1:]):
        raise CheckpointError(
            f"{found.folder}: ranks by what a language model would answer, which is not done here; served are "
            f"sequence classifiers ({_CLASSIFIER}). Choose another model."
        )
    embeds = saved.model_type != CROSS_ENCODER and bool(modules[1:])
    if embeds or not found.classifies:
        what = ", ".join(architectures) or "of no architecture that its config.json names"
        section = "sparse" if SPLADE_POOLING in modules else "models"
        raise CheckpointError(
            f"{found.folder}: is no cross-encoder: it is {what}, and rerankers are sequence classifiers "
            f"({_CLASSIFIER}). If it makes embeddings, list it under `{section}` in the config, not under "
            "`rerankers`."
        )


def _labels(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the scores: two, where config.json gives none, as transformers has it."""
    names = config.get("id2label")
    if names is None:
        count = config.get("num_labels", 2)
        names = {str(label): f"LABEL_{label}" for label in range(count)} if type(count) is int else {}
    numbered = isinstance(names, dict) and names.keys() == set(map(str, range(len(names))))
    ordered = tuple(names[str(label)] for label in range(len(names))) if numbered else ()
    if not ordered or not all(isinstance(name, str) for name in ordered):
        raise CheckpointError(f"{path}: id2label must name each score by its number, from 0 on.")
    return ordered


def _activation(saved: ModelSettings, config: Mapping[str, Any], labels: tuple[str, ...]) -> str:
    """Return the activation as sentence-transformers 6, 4 and 5, or older ones declare it, or the one by default."""
    of_model = config.get("sentence_transformers")
    declared = (
        saved.activation_fn,
        of_model.get("activation_fn") if isinstance(of_model, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    )
    found = next((name for name in declared if name is not None), None)
    return (_SIGMOID if len(labels) == 1 else _IDENTITY) if found is None else str(found)
