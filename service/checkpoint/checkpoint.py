"""What a checkpoint declares: which modules follow the encoder, which prompts, how long a text may be.

What cannot be followed exactly is an error: a module left out gives vectors of the right shape that cannot rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from service.checkpoint.adapter import Adapter, read_adapter
from service.checkpoint.declarations import (
    LEARNED_POOLINGS,
    MLM_TRANSFORMER,
    SPLADE_POOLING,
    LayerSettings,
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
from service.checkpoint.matryoshka import matryoshka_dims
from service.checkpoint.static import Model2VecSettings, Table, is_model2vec, read_table
from service.checkpoint.weights import check_layers, check_whole, weight_files
from service.errors import CheckpointError, shortened

_HEAD: Final = ("Dense", "LayerNorm", "Normalize", "Dropout")
_STATIC: Final = "StaticEmbedding"
TOKENS: Final = "token_embeddings"
"""What sentence-transformers calls token states, and which layers before pooling read and write."""
CROSS_ENCODER: Final = "CrossEncoder"
"""What sentence-transformers calls the kind of model."""
_POOLER_FILE: Final = "pooler.json"
_MOST_LABELS: Final = 65_536
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
    """A module beside encoder and pooling: `Dense`, `LayerNorm`, `Normalize` or `Dropout`, its config and folder."""

    kind: str
    config: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Checkpoint:
    """A model folder and what it declares. `pooling` is None where it declares none.

    Where the declared pooling is a learned one, `pooler` is the folder of its parameters. `layers` are those whose
    states are pooled, and the weight of each, where a WeightedLayerPooling says so; `idle_layers` says that one does,
    and that sentence-transformers passes it over, since the encoder is not asked for the states of its layers.
    `of_tokens` are the layers that each token's state goes through before pooling, `head` those after it. A static
    model has a `table` instead of an encoder, an adapter's config is that of its base model, and `matryoshka` are the
    dimensions that vectors are declared to be cut to, the largest first.
    """

    name: str
    folder: Path
    transformer: Path
    config: Mapping[str, Any]
    pooling: str | None = None
    pooler: Path | None = None
    layers: tuple[tuple[int, float], ...] | None = None
    idle_layers: bool = False
    include_prompt: bool = True
    of_tokens: tuple[HeadModule, ...] = ()
    head: tuple[HeadModule, ...] = ()
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    truncate_dim: int | None = None
    similarity: str = "cosine"
    table: Table | None = None
    adapter: Adapter | None = None
    matryoshka: tuple[int, ...] = ()

    @property
    def encoder(self) -> Path:
        """The folder of the encoder's config and weights, which for an adapter is its base model's."""
        return self.adapter.base if self.adapter else self.transformer

    @property
    def layerless(self) -> str | None:
        """Why there are no states of other layers than the last that could be pooled; None where there may be."""
        if self.table is not None:
            return "is a static model, which has no layers"
        if self.of_tokens:
            return f"declares a {self.of_tokens[0].kind} of each token, which is for the states of the last layer"
        return None

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
        return [*weight_files(self.encoder, self.config), *([self.adapter.weights] if self.adapter else ())]

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
    folder = find_folder(name, revision)
    return followed(name, folder, read_modules(folder / "modules.json"))


def followed(name: str, folder: Path, modules: Sequence[Module]) -> Checkpoint:
    """Read all that a model in a folder declares whose modules are these; errors as for `read_checkpoint`."""
    found = _begun(name, folder, modules)
    _check_embeds(found, modules)
    found = replace(found, matryoshka=matryoshka_dims(found.config, found.folder))
    if found.table is not None:
        return replace(found, **_of_static(found, found.table, modules))
    return checked(replace(found, **_declared(found, modules)) if modules else found)


def bare(name: str, revision: str | None) -> Checkpoint:
    """Find a model and read its first module's config alone; raises `CheckpointError`."""
    folder = find_folder(name, revision)
    return _begun(name, folder, read_modules(folder / "modules.json"))


def _begun(name: str, folder: Path, modules: Sequence[Module]) -> Checkpoint:
    transformer = folder / (modules[0].path if modules else "")
    adapter = read_adapter(transformer)
    encoder = adapter.base if adapter else transformer
    config = read_json(encoder / "config.json")
    if modules[0].kind == _STATIC if modules else is_model2vec(transformer, config or {}):
        return Checkpoint(name, folder, transformer, config or {}, table=read_table(transformer))
    if config is None:
        raise CheckpointError(f"{transformer}: has no config.json, so it is not a model folder.")
    _check_kind(encoder / "config.json", config)
    return Checkpoint(name, folder, transformer, config, adapter=adapter)


def checked(found: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose weights are there and whole, as far as that is told without loading them.

    Raises:
        CheckpointError: they are not.
    """
    encoder = found.encoder
    files = weight_files(encoder, found.config)
    check_whole(found.weight_files())
    if not files:
        others = [path.name for kind in ("*.bin", "*.safetensors") for path in sorted(encoder.glob(kind))]
        raise CheckpointError(
            f"{encoder}: has no model.safetensors (there is {', '.join(others) or 'no weights at all'}). Pickled "
            "weights can run code when loaded and are never read; save the model with safetensors "
            "(`model.save_pretrained(folder)`)."
        )
    check_layers(encoder / "config.json", found.config, files)
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


def _of_static(found: Checkpoint, table: Table, modules: Sequence[Module]) -> dict[str, Any]:
    """Read of a static model, whose vectors are means over tokens, what modules.json or model2vec declares beside."""
    path = found.transformer / "config.json"
    settings = Model2VecSettings.read(path) if table.of_model2vec else None
    declared: dict[str, Any] = _modules_after(found.folder, modules, {"pooling": "mean"}) | _of_model(found.folder)
    normalizes = any(module.kind == "Normalize" for module in declared["head"])
    if settings and not modules and settings.normalize:
        declared["head"] = (HeadModule("Normalize", {}, found.folder),)
    elif settings and settings.normalize != normalizes and "normalize" in found.config:
        raise CheckpointError(
            f"{path}: normalize is {json.dumps(settings.normalize)}, and modules.json has "
            f"{'a' if normalizes else 'no'} Normalize. Make the two agree on what the vectors are meant to be."
        )
    if settings:
        declared["max_tokens"] = settings.max_length
    return declared


def _check_kind(path: Path, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless what kind of model it is, is told in words."""
    kind, architectures = config.get("model_type"), config.get("architectures")
    if kind is not None and not isinstance(kind, str):
        raise CheckpointError(f"{path}: model_type must be a string, not {shortened(kind)}.")
    labels = config.get("num_labels")
    if isinstance(labels, int) and labels > _MOST_LABELS:  # transformers makes a name of each
        raise CheckpointError(
            f"{path}: num_labels is {labels}, and the most that is followed is {_MOST_LABELS}. Correct it, or get "
            "the file anew."
        )
    names = architectures if isinstance(architectures, list) else [None]
    if architectures is not None and not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: architectures must be a list of strings, not {shortened(architectures)}.")


def _declared(found: Checkpoint, modules: Sequence[Module]) -> dict[str, Any]:
    """Read what a sentence-transformers folder adds to a plain encoder, as fields of `Checkpoint`."""
    texts = TransformerSettings.read(TransformerSettings.file_in(found.transformer))
    declared = _modules_after(found.folder, modules, {}) | _of_model(found.folder)
    asked = bool(found.config.get("output_hidden_states")) if texts.hidden_states is None else texts.hidden_states
    if "layers" in declared and not asked:
        declared |= {"layers": None, "idle_layers": True}
    return declared | {"max_tokens": texts.max_tokens, "lower_case": texts.do_lower_case}


def _of_model(folder: Path) -> dict[str, Any]:
    """Read what a sentence-transformers folder says of the model as a whole."""
    model = ModelSettings.read(folder / "config_sentence_transformers.json")
    return {
        "prompts": model.prompts or {},
        "default_prompt": model.default_prompt_name,
        "truncate_dim": model.truncate_dim,
        "similarity": model.similarity,
    }


def _modules_after(folder: Path, modules: Sequence[Module], pooling: dict[str, Any]) -> dict[str, Any]:
    """Read layers, layers of tokens, pooling and head: the modules after the first, which may have pooled already."""
    layers: dict[str, Any] = {}
    of_tokens: list[HeadModule] = []
    head: list[HeadModule] = []
    for place, module in enumerate(modules[1:], 1):
        path = folder / module.path
        if module.kind == "WeightedLayerPooling" and place == 1 and not pooling:
            layers = {"layers": LayerSettings.read(path / "config.json").weights(path / "model.safetensors")}
        elif module.kind == "Pooling" and not pooling:
            pooling = _pooling(path / "config.json")
        elif module.kind in LEARNED_POOLINGS and not pooling:
            pooling = _learned_pooling(path)
        elif module.kind in _HEAD and pooling:
            head.append(HeadModule(module.kind, read_json(path / "config.json") or {}, path))
        elif module.kind == "Dense" and not layers and _is_of_tokens(config := read_json(path / "config.json") or {}):
            of_tokens.append(HeadModule(module.kind, config, path))
        else:
            raise UnknownModule(
                f"{folder / 'modules.json'}: module {module.type!r} ({module.path!r}) is not one that can be "
                "followed here after what stands before it. Known are Transformer, WeightedLayerPooling or Dense of "
                "token_embeddings, one Pooling (or LearnedPooling of ours), or StaticEmbedding alone, then Dense, "
                "LayerNorm, Normalize and Dropout. Leaving it out would give wrong vectors.",
                place=place,
                module=module.type,
            )
    if not pooling:
        raise CheckpointError(
            f"{folder / 'modules.json'}: declares no Pooling module, so its vectors are not pooled token states."
        )
    return pooling | layers | {"of_tokens": tuple(of_tokens), "head": tuple(head)}


def _is_of_tokens(config: Mapping[str, Any]) -> bool:
    """Whether a layer reads and replaces the state of each token."""
    return {config.get("module_input_name"), config.get("module_output_name") or TOKENS} == {TOKENS}


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
