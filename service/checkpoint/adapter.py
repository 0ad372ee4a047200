"""Adapters of PEFT: weights that are added to those of a base model, which lies elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.checkpoint.declarations import read_json, read_modules
from service.checkpoint.folder import find_folder
from service.errors import CheckpointError, shortened

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_KINDS: Final = ("LORA",)
_MERGE: Final = (
    "Merge the adapter into the model (`model.merge_and_unload()` of peft) and save that, or choose another model."
)


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, its `adapter_config.json`, and the folder of the base model's weights and config."""

    folder: Path
    config: Mapping[str, Any]
    base: Path

    @property
    def weights(self) -> Path:
        """The file of the adapter's own weights."""
        return self.folder / WEIGHTS


def read_adapter(folder: Path) -> Adapter | None:
    """Read what a folder's adapter declares, and find its base model as any other is found; None without an adapter.

    Raises:
        CheckpointError: it is of a kind that is not known here, has no safetensors, or its base model is not there.
    """
    path = folder / CONFIG
    config = read_json(path)
    if config is None:
        return None
    kind, name, revision = (config.get(key) for key in ("peft_type", "base_model_name_or_path", "revision"))
    if kind not in _KINDS:
        raise CheckpointError(
            f"{path}: peft_type is {shortened(kind)}, and the adapters that are applied here are "
            f"{', '.join(_KINDS)}. {_MERGE}"
        )
    if not (folder / WEIGHTS).is_file():
        others = ", ".join(file.name for file in sorted(folder.glob("adapter_model*"))) or "none"
        raise CheckpointError(
            f"{folder}: has no {WEIGHTS} (there is {others}). Pickled weights can run code when loaded and are never "
            "read; save the adapter with safetensors (`model.save_pretrained(folder)`)."
        )
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"{path}: base_model_name_or_path is {shortened(name)}, and has to be the folder or the Hugging Face id "
            "of the model that the adapter was trained on. Write it there."
        )
    is_folder = Path(name).expanduser().is_dir()
    try:
        base = find_folder(name, revision if isinstance(revision, str) and not is_folder else None)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: the base model {name!r} of the adapter (base_model_name_or_path) cannot be had: {error.detail}"
        ) from None
    modules = read_modules(base / "modules.json")
    base = base / modules[0].path if modules else base
    if (base / CONFIG).exists() or not (base / "config.json").exists():
        what = "is an adapter itself" if (base / CONFIG).exists() else "has no config.json"
        raise CheckpointError(
            f"{path}: base_model_name_or_path is {name!r}, and {base} {what}, so it is no base model. {_MERGE}"
        )
    return Adapter(folder, config, base)
