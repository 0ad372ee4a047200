"""The files in which a model folder declares how it wants to be used, each as a strict pydantic model.

They are those of sentence-transformers (its releases 2 to 6). An unknown key is an error: it may change the vectors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.numpy import load_file

from service.checkpoint import arguments
from service.config import expected, read_file
from service.errors import CheckpointError
from service.similarity import COSINE

LEARNED_POOLING: Final = "millpond.LearnedPooling"
"""The module of ours that may stand where sentence-transformers' Pooling does."""
LEARNED_POOLINGS: Final = (LEARNED_POOLING, "pooling.sentence_transformers.LearnedPooling")
"""All names under which it is read: first today's, then that of earlier releases."""
TRANSFORMER_CONFIGS: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MLM_TRANSFORMER: Final = "MLMTransformer"
"""An older name of a Transformer whose task is fill-mask."""
SPLADE_POOLING: Final = "SpladePooling"
FIRST_MODULES: Final = ("Transformer", "StaticEmbedding", MLM_TRANSFORMER)
"""What a model may begin with."""
ROUTERS: Final = ("Router", "Asym")
"""The module that chooses others by what a text is for, by today's name and by that of earlier releases."""
_POOLINGS: Final = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""Our names for sentence-transformers' pooling modes."""
_FLAGS: Final = {  # in the order in which sentence-transformers concatenates them
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a file that holds a JSON object; None where there is no such file.

    Raises:
        CheckpointError: it holds something else.
    """
    try:
        value = json.loads(read_file(path).decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(value).__name__}.")
    return value


class Declaration(BaseModel):
    """A file of JSON; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; all defaults where there is no such file.

        Raises:
            CheckpointError: naming the file, the key and what would be right.
        """
        try:
            return cls.model_validate(read_json(path) or {})
        except ValidationError as error:
            problems = error.errors(include_url=False)
        unknown = sorted(str(problem["loc"][0]) for problem in problems if problem["type"] == "extra_forbidden")
        if unknown:
            reason = (
                f"{unknown} is not known here, and may change the vectors. Known keys: {sorted(cls.model_fields)}"
            )
        elif problems[0]["type"] == "value_error":
            reason = str(problems[0]["ctx"]["error"])
        else:
            reason = f"{problems[0]['loc'][0]}: {expected(problems[0])}"
        raise CheckpointError(f"{path}: {reason}.")


_Count = Annotated[int, Field(ge=1)]


def _check(field: str, args: Any, known: arguments.Arguments) -> None:
    if not isinstance(args, dict):
        raise ValueError(f"{field} must be an object, not {args!r}")
    if unknown := arguments.unknown(args, known):
        raise ValueError(f"{field} sets {unknown}, which cannot be followed here")


def _known(known: arguments.Arguments) -> AfterValidator:
    def check(args: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        _check(str(info.field_name), args or {}, known)
        return args

    return AfterValidator(check)


_EncoderArgs = Annotated[dict[str, Any] | None, _known(arguments.OF_ENCODER)]
_TokenizerArgs = Annotated[dict[str, Any] | None, _known(arguments.OF_TOKENIZER)]
_CallArgs = Annotated[dict[str, Any] | None, _known(arguments.OF_CALLS)]


class TransformerSettings(Declaration):
    """`sentence_bert_config.json`, or one of its older names: how texts enter the encoder."""

    output: ClassVar[str] = "last_hidden_state"
    gives: ClassVar[str] = "token states"

    max_seq_length: _Count | None = None
    do_lower_case: bool = False
    transformer_task: Literal["feature-extraction"] = "feature-extraction"
    module_output_name: Literal["token_embeddings"] = "token_embeddings"
    modality_config: dict[str, Any] | None = None
    unpad_inputs: Any = None
    backend: Any = None
    model_args: _EncoderArgs = None
    tokenizer_args: _TokenizerArgs = None
    config_args: _EncoderArgs = None
    model_kwargs: _EncoderArgs = None
    processor_kwargs: _TokenizerArgs = None
    config_kwargs: _EncoderArgs = None
    processing_kwargs: _CallArgs = None
    query_length: None = None
    document_length: None = None
    query_expansion: None = None

    @staticmethod
    def file_in(folder: Path) -> Path:
        """Return the file in the folder of a transformer, which need not be there."""
        given = (folder / name for name in TRANSFORMER_CONFIGS if (folder / name).exists())
        return next(given, folder / TRANSFORMER_CONFIGS[0])

    @property
    def hidden_states(self) -> bool | None:
        """Whether the encoder is asked for the states of all layers; None where its own config says."""
        given = (args.get("output_hidden_states") for args in (self.config_kwargs or {}, self.config_args or {}))
        return next((bool(each) for each in given if each is not None), None)

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text: as calls of the tokenizer are given, else as it is loaded, else `max_seq_length`."""
        of_text = (self.processing_kwargs or {}).get("text", {})
        of_tokenizer = self.tokenizer_args or self.processor_kwargs or {}
        limits = of_text.get("max_length"), of_tokenizer.get("model_max_length"), self.max_seq_length
        found = next((limit for limit in limits if limit is not None), None)
        return found if found is None or found <= arguments.NO_LIMIT else None

    @field_validator("processing_kwargs")
    @classmethod
    def _of_texts(cls, calls: dict[str, Any] | None) -> dict[str, Any] | None:
        for kind, known in (("text", arguments.OF_TEXT), ("common", arguments.OF_ALL)):
            _check(f"processing_kwargs.{kind}", (calls or {}).get(kind, {}), known)
        return calls

    @field_validator("modality_config")
    @classmethod
    def _plain_text(cls, modalities: dict[str, Any] | None) -> dict[str, Any] | None:
        if modalities and "message" in modalities:
            raise ValueError(
                "modality_config has 'message', so sentence-transformers puts each text into the chat template, "
                "which is not done here. If the model was trained on bare texts, remove that entry"
            )
        wanted = {"method": "forward", "method_output_name": cls.output}
        if modalities and modalities.get("text") != wanted:
            text = modalities.get("text")
            raise ValueError(f"modality_config.text is {text!r}; only {wanted!r} gives {cls.gives} of text")
        return modalities


class ClassifierSettings(TransformerSettings):
    """The same file of a cross-encoder: how texts and pairs of texts enter the classifier."""

    output: ClassVar[str] = "logits"
    gives: ClassVar[str] = "scores"

    transformer_task: Literal["sequence-classification"] = "sequence-classification"  # type: ignore[assignment]
    module_output_name: Literal["scores"] = "scores"  # type: ignore[assignment]


class MaskedLMSettings(TransformerSettings):
    """The same file of a masked language model: how texts enter it."""

    output: ClassVar[str] = "logits"
    gives: ClassVar[str] = "token logits"

    transformer_task: Literal["fill-mask"] = "fill-mask"  # type: ignore[assignment]


class SpladeSettings(Declaration):
    """The `config.json` of a SpladePooling module."""

    pooling_strategy: Literal["max", "sum"] = "max"
    activation_function: Literal["relu", "log1p_relu"] = "relu"
    word_embedding_dimension: Any = None
    embedding_dimension: Any = None


class PoolingSettings(Declaration):
    """The `config.json` of a Pooling module: `pooling_mode`, or in older folders a flag for each mode."""

    pooling_mode: list[str] | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False
    include_prompt: bool = True
    word_embedding_dimension: Any = None
    embedding_dimension: Any = None

    @field_validator("pooling_mode", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        modes = [value] if isinstance(value, str) else value
        unknown = (
            [mode for mode in modes if not isinstance(mode, str) or mode not in _POOLINGS]
            if isinstance(modes, list)
            else []
        )
        if unknown or modes == []:
            raise ValueError(f"pooling_mode {unknown} is not known. Known are {', '.join(_POOLINGS)}")
        return modes

    @property
    def spec(self) -> str:
        """The declared pooling in our short form, such as `mean + max`."""
        modes = self.pooling_mode or [mode for flag, mode in _FLAGS.items() if getattr(self, flag)] or ["mean"]
        return " + ".join(_POOLINGS[mode] for mode in modes)


class LearnedPoolingSettings(Declaration):
    """The `config.json` of a LearnedPooling module; the pooler has files of its own beside it."""

    include_prompt: bool = True


class LayerSettings(Declaration):
    """The `config.json` of a WeightedLayerPooling module; beside it are weights of layers, from `layer_start` on."""

    layer_start: Annotated[int, Field(ge=0)] = 4
    num_hidden_layers: _Count = 12
    word_embedding_dimension: Any = None
    embedding_dimension: Any = None

    def weights(self, path: Path) -> tuple[tuple[int, float], ...]:
        """Read the weights, and return each with its layer.

        Raises:
            CheckpointError: they are missing or damaged, are not as many as the layers, or cannot be divided by.
        """
        try:
            found = load_file(path)["layer_weights"].astype(float).tolist()
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: is missing, damaged, or holds no layer_weights: {reason}.") from None
        layers = range(self.layer_start, self.num_hidden_layers + 1)
        if not isinstance(found, list) or len(found) != len(layers) or not found:
            raise CheckpointError(
                f"{path}: layer_weights are not one for each of the {len(layers)} layers from layer_start "
                f"{self.layer_start} to num_hidden_layers {self.num_hidden_layers}."
            )
        if not math.isfinite(total := math.fsum(found)) or total == 0:
            raise CheckpointError(f"{path}: layer_weights add up to {total}, and are divided by that. Get it anew.")
        return tuple(zip(layers, found, strict=True))


class ModelSettings(Declaration):
    """`config_sentence_transformers.json`; its other keys say how the folder was saved."""

    model_config = ConfigDict(extra="ignore")

    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None
    truncate_dim: _Count | None = None
    similarity_fn_name: str | None = None
    model_type: str | None = None
    activation_fn: str | None = None
    max_active_dims: _Count | None = None

    @property
    def similarity(self) -> str:
        """The similarity that vectors are to be compared by; whether it is one of ours is for others to say."""
        return {None: COSINE.name, "dot_product": "dot"}.get(self.similarity_fn_name, str(self.similarity_fn_name))

    @model_validator(mode="after")
    def _default_is_a_prompt(self) -> Self:
        names = sorted(self.prompts or {})
        if self.default_prompt_name is not None and self.default_prompt_name not in names:
            raise ValueError(f"default_prompt_name {self.default_prompt_name!r} is not among prompts {names}")
        return self


class Module(BaseModel):
    """One entry of `modules.json`."""

    path: str
    type: str

    @property
    def kind(self) -> str:
        """Its class name where it is one of sentence-transformers' own, else its whole type."""
        package, _, name = self.type.rpartition(".")
        return name if package.partition(".")[0] == "sentence_transformers" else self.type


def listed_modules(path: Path) -> list[Module]:
    """Read `modules.json` in the file's order, which is the one that counts; empty where there is no such file.

    Raises:
        CheckpointError: it is damaged, or leads out of the model folder.
    """
    if not path.exists():
        return []
    try:
        modules = TypeAdapter(list[Module]).validate_python(json.loads(read_file(path).decode()))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a list of modules: {' '.join(str(error).split())}.") from None
    for module in modules:
        require_inside(path, module.path)
    return modules


def read_modules(path: Path) -> list[Module]:
    """Read the `modules.json` of a model of one encoder, as `listed_modules` does; and check what it begins with.

    Raises:
        CheckpointError: it is damaged, does not begin with a known module, or leads out of the model folder.
    """
    modules = listed_modules(path)
    if modules or path.exists():
        check_first(path, modules)
    return modules


def check_first(path: Path, modules: Sequence[Module]) -> None:
    """Raise `CheckpointError` unless the modules of a `modules.json` begin with one that a model may begin with."""
    if modules and modules[0].kind in ROUTERS:
        raise CheckpointError(
            f"{path}: begins with a {modules[0].kind}, which chooses between several models by what a text is for. "
            "That is followed for the dense vectors of what is listed under `models`, and nowhere else."
        )
    if not modules or modules[0].kind not in FIRST_MODULES:
        first = modules[0].type if modules else "nothing"
        raise CheckpointError(
            f"{path}: must begin with a Transformer module, not {first}. Known are a Transformer with its pooling, "
            "StaticEmbedding, a Router between such, and for sparse vectors SpladePooling."
        )


def require_inside(path: Path, relative: str) -> None:
    """Raise `CheckpointError` where the path of a module, as the file `path` names it, leads out of the folder."""
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise CheckpointError(f"{path}: path {relative!r} leads out of the model folder.")
