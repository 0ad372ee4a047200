"""Adapters merged into their base model, by the package peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from service.checkpoint.adapter import CONFIG, Adapter
from service.errors import CheckpointError, ConfigError, brief


def merge(module: Any, adapter: Adapter) -> Any:
    """Add an adapter's weights to those of its base model.

    Args:
        module: the base model, a transformers module in float32.
        adapter: the adapter.

    Returns:
        The module, with as many weights as before.

    Raises:
        ConfigError: peft is not installed.
        CheckpointError: the adapter is damaged, declares what is not known, or is of another base model.
    """
    path = adapter.folder / CONFIG
    try:
        import peft
    except ImportError:
        raise ConfigError(
            f"{path}: an adapter is merged by peft, which is not installed: pip install 'millpond[peft]'. Or merge "
            "it elsewhere (`model.merge_and_unload()`) and save that."
        ) from None
    known = {field.name for field in fields(peft.LoraConfig)}
    if unknown := sorted(adapter.config.keys() - known):
        raise CheckpointError(
            f"{path}: {unknown} is not known to peft {peft.__version__}, and may change the vectors. Install a newer "
            f"peft (it was saved by {adapter.config.get('peft_version', 'another')})."
        )
    try:
        weights = load_file(adapter.weights)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{adapter.weights}: cannot be read ({brief(error, 200)}). Get it anew.") from None
    base = type(module).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel(module, peft.LoraConfig(**{**adapter.config, "inference_mode": True}))
            wanted = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    except Exception as error:  # peft raises many kinds
        raise CheckpointError(
            f"{path}: does not describe an adapter of {base} in {adapter.base} ({brief(error, 300)}). It is of "
            "another base model than base_model_name_or_path says, or damaged."
        ) from None
    _check_equal(adapter, base, wanted, weights)
    try:
        peft.set_peft_model_state_dict(model, weights)
        return model.merge_and_unload(safe_merge=True)
    except Exception as error:  # of numbers that are none
        raise CheckpointError(
            f"{adapter.weights}: cannot be merged into {adapter.base} ({brief(error, 300)}). Get it anew."
        ) from None


def _check_equal(adapter: Adapter, base: str, wanted: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise `CheckpointError` unless the weights are those that the adapter has in this base model."""

    def refuse(name: str, what: str) -> None:
        raise CheckpointError(
            f"{adapter.weights}: {name!r} {what}, so it is an adapter of another model than {adapter.base} ({base}). "
            f"Write the right one to base_model_name_or_path in {CONFIG}, or get the folder anew."
        )

    for name in _first(wanted.keys() - given.keys()):
        refuse(name, "is missing")
    for name in _first(given.keys() - wanted.keys()):
        refuse(name, "has no place in it")
    for name, weight in given.items():
        if weight.shape != wanted[name].shape:
            sizes = (" x ".join(map(str, each.shape)) for each in (weight, wanted[name]))
            refuse(name, "is {} where the base model has {}".format(*sizes))


def _first(names: Iterable[str]) -> list[str]:
    return sorted(names)[:1]
