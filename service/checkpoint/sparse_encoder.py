"""What a sparse encoder declares: a masked language model, and how its logits become weights of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from service.checkpoint.checkpoint import Checkpoint, UnknownModule, bare, checked
from service.checkpoint.declarations import (
    MLM_TRANSFORMER,
    SPLADE_POOLING,
    MaskedLMSettings,
    ModelSettings,
    Module,
    SpladeSettings,
    TransformerSettings,
    read_json,
    read_modules,
)
from service.errors import CheckpointError

_MASKED_LM: Final = "ForMaskedLM"
_KNOWN: Final = "Known are a Transformer whose task is fill-mask, or an MLMTransformer, and then one SpladePooling"


@dataclass(frozen=True)
class SparseEncoder:
    """A masked language model whose logits are pooled to a row over its vocabulary.

    Args:
        checkpoint: its folder.
        strategy: what is made of the tokens of a text.
        activation: what logits go through before the logarithm.
        most_active: most tokens with a weight, the largest ones; None where there may be any number.
        declared: whether the folder says all this; else it is what is usual.
    """

    checkpoint: Checkpoint
    strategy: Literal["max", "sum"] = "max"
    activation: Literal["relu", "log1p_relu"] = "relu"
    most_active: int | None = None
    declared: bool = True


def read_sparse_encoder(name: str, revision: str | None = None) -> SparseEncoder:
    """Find a sparse encoder and read all that it declares; its weights are not loaded.

    A plain folder of transformers with a masked language model declares nothing; it is pooled as SPLADE does by
    default.

    Args:
        name: `bundled/NAME`, a folder, or a Hugging Face id.
        revision: commit, tag or branch, for a Hugging Face id only.

    Raises:
        UnknownModule: it declares a module that cannot be followed here.
        CheckpointError: missing, damaged, without whole safetensors, no sparse encoder, or declaring what is not
            known here.
    """
    found = bare(name, revision)
    modules = read_modules(found.folder / "modules.json")
    saved = ModelSettings.read(found.folder / "config_sentence_transformers.json")
    if not modules:
        _check_plain(found)
        return SparseEncoder(checked(found), declared=False)
    _check_modules(found, modules)
    texts = MaskedLMSettings.read(_file_of_texts(found, modules[0]))
    path = found.folder / modules[1].path / "config.json"
    if not path.exists():
        raise CheckpointError(f"{path}: is missing, so the declared pooling is not known.")
    pooling = SpladeSettings.read(path)
    checkpoint = replace(
        found,
        max_tokens=texts.max_tokens,
        lower_case=texts.do_lower_case,
        prompts=saved.prompts or {},
        default_prompt=saved.default_prompt_name,
    )
    return SparseEncoder(
        checked(checkpoint), pooling.pooling_strategy, pooling.activation_function, saved.max_active_dims
    )


def _check_plain(found: Checkpoint) -> None:
    architectures = found.config.get("architectures") or []
    if not any(name.endswith(_MASKED_LM) for name in architectures):
        what = ", ".join(architectures) or "of no architecture that its config.json names"
        raise CheckpointError(
            f"{found.folder}: is no sparse encoder: it is {what}, and sparse vectors are made of the logits of a "
            f"masked language model ({_MASKED_LM}). {_elsewhere(found)}"
        )


def _check_modules(found: Checkpoint, modules: list[Module]) -> None:
    """Refuse what is no masked language model with SPLADE's pooling."""
    path = found.folder / "modules.json"
    if not any(module.kind == SPLADE_POOLING for module in modules):
        kinds = ", ".join(module.kind for module in modules)
        raise CheckpointError(
            f"{path}: declares no sparse vectors that can be made here, but {kinds}. {_KNOWN}. {_elsewhere(found)}"
        )
    for place, module in enumerate(modules[1:], 1):
        if module.kind != SPLADE_POOLING or place > 1:
            raise UnknownModule(
                f"{path}: module {module.type!r} ({module.path!r}) is not one that can be followed here after what "
                f"stands before it. {_KNOWN}. Leaving it out would give wrong vectors.",
                place=place,
                module=module.type,
            )


def _file_of_texts(found: Checkpoint, first: Module) -> Path:
    """Return the file that says how texts enter the model, and that its logits are asked for."""
    path = TransformerSettings.file_in(found.transformer)
    if first.kind != MLM_TRANSFORMER and "transformer_task" not in (read_json(path) or {}):
        raise CheckpointError(
            f"{path}: does not say that the task is fill-mask, so SpladePooling would be given token states instead "
            f'of logits. {_KNOWN}. Add "transformer_task": "fill-mask" if that is meant.'
        )
    return path


def _elsewhere(found: Checkpoint) -> str:
    section = "rerankers" if found.classifies else "models"
    does = "scores pairs of texts" if found.classifies else "makes dense vectors"
    return f"If it {does}, list it under `{section}` in the config, not under `sparse`."
