"""What a checkpoint declares: which modules follow the encoder, which prompts, how long a text may be.

What cannot be followed exactly is an error: a module left out gives vectors of the right shape that cannot rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from service.checkpoint.declarations import (
    LEARNED_POOLINGS,
    MLM_TRANSFORMER,
    SPLADE_POOLING,
    LearnedPoolingSettings,
    ModelSettings,
    Module,
    PoolingSettings,
    TransformerSettings,
    read_json,
    read_modules,
)
from service.checkpoint.folder import find_folder
from service.checkpoint.hashing import sha256
from service.checkpoint.weights import check_layers, check_whole, weight_files
from service.errors import CheckpointError, shortened

_HEAD: Final = ("Dense", "LayerNorm", "Normalize", "Dropout")
CROSS_ENCODER: Final = "CrossEncoder"
"""What sentence-transformers calls the kind of model."""
_POOLER_FILE: Final = "pooler.json"
_CAUSAL_SUFFIXES: Final = ("ForCausalLM", "LMHeadModel")
_CAUSAL_TYPES: Final = {
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gpt2", "gpt_neox", "phi", "opt", "bloom"),
}


class UnknownModule(CheckpointError):
    """A module that cannot be followed; `place` is its index in `modules.json`, `module` its type there."""

    def __init__(self, detail: str, *, place: int, module: str) -> None:
        super().__init__(detail)
        self.place = place
        self.module = module


@dataclass(frozen=True)
class HeadModule:
    """A module after pooling: `Dense`, `LayerNorm`, `Normalize` or `Dropout`, its config and folder."""

    kind: str
    config: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Checkpoint:
    """A model folder and what it declares. `pooling` is None where it declares none.

    Where the declared pooling is a learned one, `pooler` is the folder of its parameters.
    """

    name: str
    folder: Path
    transformer: Path
    config: Mapping[str, Any]
    pooling: str | None = None
    pooler: Path | None = None
    include_prompt: bool = True
    head: tuple[HeadModule, ...] = ()
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    truncate_dim: int | None = None
    similarity: str = "cosine"

    @property
    def classifies(self) -> bool:
        """Whether it has a head that classifies texts, or scores pairs of them."""
        return any(name.endswith("ForSequenceClassification") for name in self.config.get("architectures") or [])

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it, as far as the config says."""
        if self.config.get("is_causal") is False or self.config.get("use_bidirectional_attention") is True:
            return False
        architectures = self.config.get("architectures") or []
        return self.config.get("model_type", "") in _CAUSAL_TYPES or any(
            name.endswith(_CAUSAL_SUFFIXES) for name in architectures
        )

    def weight_files(self) -> list[Path]:
        """Return the safetensors files that the encoder is loaded from, by name.

        Raises:
            CheckpointError: an index is damaged or names a missing file, or two sets of weights differ.
        """
        return weight_files(self.transformer, self.config)

    def sums(self, *patterns: str) -> dict[str, str]:
        """Return the SHA-256 of each of the encoder's files whose name fits a pattern, by name."""
        return {path.name: sha256(path) for pattern in patterns for path in sorted(self.transformer.glob(pattern))}


def read_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find a model and read all that it declares; its weights are not loaded.

    Args:
        name: `bundled/NAME`, a folder, or a Hugging Face id.
        revision: commit, tag or branch, for a Hugging Face id only.

    Raises:
        UnknownModule: it declares a module that cannot be followed here.
        CheckpointError: missing, damaged, without whole safetensors, or declaring what is not known here or more
            layers than there are weights.
    """
    found = bare(name, revision)
    modules = read_modules(found.folder / "modules.json")
    _check_embeds(found, modules)
    return checked(replace(found, **_declared(found.folder, found.transformer, modules)) if modules else found)


def bare(name: str, revision: str | None) -> Checkpoint:
    """Find a model and read its transformer's config alone; raises `CheckpointError`."""
    folder = find_folder(name, revision)
    modules = read_modules(folder / "modules.json")
    transformer = folder / (modules[0].path if modules else "")
    config = read_json(transformer / "config.json")
    if config is None:
        raise CheckpointError(f"{transformer}: has no config.json, so it is not a model folder.")
    _check_kind(transformer / "config.json", config)
    if (transformer / "adapter_config.json").exists():
        raise CheckpointError(
            f"{transformer}: has an adapter_config.json, and adapters are not applied here. Merge the adapter into "
            "the model (`model.merge_and_unload()` of peft) and save that."
        )
    return Checkpoint(name, folder, transformer, config)


def checked(found: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose weights are there and whole, as far as that is told without loading them.

    Raises:
        CheckpointError: they are not.
    """
    transformer = found.transformer
    files = found.weight_files()
    check_whole(files)
    if not files:
        others = [path.name for kind in ("*.bin", "*.safetensors") for path in sorted(transformer.glob(kind))]
        raise CheckpointError(
            f"{transformer}: has no model.safetensors (there is {', '.join(others) or 'no weights at all'}). Pickled "
            "weights can run code when loaded and are never read; save the model with safetensors "
            "(`model.save_pretrained(folder)`)."
        )
    check_layers(transformer / "config.json", found.config, files)
    return found


def _check_embeds(found: Checkpoint, modules: Sequence[Module]) -> None:
    """Refuse what sentence-transformers has saved as a cross-encoder, and what makes sparse vectors."""
    path = found.folder / "config_sentence_transformers.json"
    if (read_json(path) or {}).get("model_type") == CROSS_ENCODER:
        raise CheckpointError(
            f"{found.folder}: is a cross-encoder, which scores pairs of texts and makes no vectors. List it under "
            "`rerankers` in the config, not under `models`."
        )
    first, second = ([module.kind for module in modules] + ["", ""])[:2]
    if first == MLM_TRANSFORMER or second == SPLADE_POOLING:
        raise CheckpointError(
            f"{found.folder}: is a sparse encoder, which makes weights of its vocabulary's tokens and no dense "
            "vectors. List it under `sparse` in the config, not under `models`."
        )


def _check_kind(path: Path, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless what kind of model it is, is told in words."""
    kind, architectures = config.get("model_type"), config.get("architectures")
    if kind is not None and not isinstance(kind, str):
        raise CheckpointError(f"{path}: model_type must be a string, not {shortened(kind)}.")
    names = architectures if isinstance(architectures, list) else [None]
    if architectures is not None and not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: architectures must be a list of strings, not {shortened(architectures)}.")


def _declared(folder: Path, transformer: Path, modules: Sequence[Module]) -> dict[str, Any]:
    """Read what a sentence-transformers folder adds to a plain encoder, as fields of `Checkpoint`."""
    texts = TransformerSettings.read(TransformerSettings.file_in(transformer))
    model = ModelSettings.read(folder / "config_sentence_transformers.json")
    return _modules_after(folder, modules) | {
        "max_tokens": texts.max_tokens,
        "lower_case": texts.do_lower_case,
        "prompts": model.prompts or {},
        "default_prompt": model.default_prompt_name,
        "truncate_dim": model.truncate_dim,
        "similarity": model.similarity,
    }


def _modules_after(folder: Path, modules: Sequence[Module]) -> dict[str, Any]:
    """Read pooling and head, the modules after the Transformer."""
    pooling: dict[str, Any] = {}
    head: list[HeadModule] = []
    for place, module in enumerate(modules[1:], 1):
        path = folder / module.path
        if module.kind == "Pooling" and not pooling:
            pooling = _pooling(path / "config.json")
        elif module.kind in LEARNED_POOLINGS and not pooling:
            pooling = _learned_pooling(path)
        elif module.kind in _HEAD and pooling:
            head.append(HeadModule(module.kind, read_json(path / "config.json") or {}, path))
        else:
            raise UnknownModule(
                f"{folder / 'modules.json'}: module {module.type!r} ({module.path!r}) is not one that can be "
                "followed here after what stands before it. Known are Transformer, one Pooling (or LearnedPooling of "
                "ours), then Dense, LayerNorm, Normalize and Dropout. Leaving it out would give wrong vectors.",
                place=place,
                module=module.type,
            )
    if not pooling:
        raise CheckpointError(
            f"{folder / 'modules.json'}: declares no Pooling module, so its vectors are not pooled token states."
        )
    return pooling | {"head": tuple(head)}


def _pooling(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"{path}: is missing, so the declared pooling is not known.")
    settings = PoolingSettings.read(path)
    return {"pooling": settings.spec, "include_prompt": settings.include_prompt}


def _learned_pooling(folder: Path) -> dict[str, Any]:
    spec = (read_json(folder / _POOLER_FILE) or {}).get("spec")
    if not isinstance(spec, str):
        raise CheckpointError(f"{folder / _POOLER_FILE}: is missing or describes no pooler.")
    settings = LearnedPoolingSettings.read(folder / "config.json")
    return {"pooling": spec, "pooler": folder, "include_prompt": settings.include_prompt}
