"""Recipes: how token states become vectors, by what a config says and what a checkpoint declares."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

import pooling
from pooling import Pooler, PoolingError, Token, layers, masks
from pooling.layers import LAST, Layers, LayerSpec, NoLayersError
from service.arrays import Ids
from service.checkpoint import Checkpoint, quoted_prompts
from service.config import ModelConfig
from service.embedding.head import Head
from service.embedding.prompts import role_prompts, without_prompt
from service.encoder import Anatomy, Tokenizer
from service.encoder.length import most_tokens
from service.errors import CheckpointError, ConfigError, InvalidInput, Place, did_you_mean, shortened
from service.similarity import SIMILARITIES

Spec = str | Mapping[str, Any] | list[Any]
"""A pooling in any form that `pooling.build` takes, or `declared`."""

_RANKS: Final = " It has a head that classifies: if it is a cross-encoder, list it under `rerankers` instead."
_MOST_DIMENSIONS: Final = 65_536
"""The largest pooled vector that a request may ask for."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """How texts become token ids, and their token states vectors. Recipes compare by identity.

    Args:
        name: the model's name in the deployment.
        checkpoint: the encoder's.
        pooler: pools the token states.
        layers: whose states are pooled.
        special_tokens: the tokenizer's special tokens and their ids.
        declared: whether the pooling is the one that the checkpoint declares.
        head: the layers after pooling.
        normalize: whether vectors are normalised unless a request says otherwise.
        max_tokens: length of the longest text, special tokens and prompt included.
        prompts: texts put before an input, by name.
        include_prompt: whether the prompt's tokens are pooled too.
        default_prompt: name of the prompt used if none is asked for.
        truncate_dim: dimensions kept after normalising, as sentence-transformers does where declared.
        truncate: whether a text that is too long is cut unless a request says otherwise.
        warnings: what an operator should know, in sentences.
    """

    name: str
    checkpoint: Checkpoint
    pooler: Pooler
    layers: Layers
    special_tokens: Mapping[str, int]
    declared: bool
    head: Head
    normalize: bool
    max_tokens: int
    prompts: Mapping[str, str]
    include_prompt: bool
    default_prompt: str | None
    truncate_dim: int | None
    truncate: bool
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        self.pooler.eval()

    @property
    def layers_declared(self) -> bool:
        """Whether the layers are those that the checkpoint declares, or the last where it declares none."""
        declared = self.checkpoint.layers
        return self.layers == (layers.weighted(dict(declared), declared[-1][0]) if declared else LAST)

    @property
    def token_id(self) -> int | None:
        """The id of the one token that is pooled, where the pooling is of one."""
        return self.special_tokens.get(self.pooler.token) if isinstance(self.pooler, Token) else None

    def pooled(self, mask: Tensor, ids: Tensor) -> Tensor:
        """Narrow the mask (rows, time) of the tokens `ids` (rows, time) to those that the pooling is to be given."""
        return mask if self.token_id is None else masks.only(mask, ids, self.token_id)

    def require_pooled(self, ids: Ids, where: Place) -> None:
        """Raise `InvalidInput` unless a text's ids, but those left out, have the one token that is pooled once."""
        if not isinstance(self.pooler, Token) or (count := int((ids == self.token_id).sum())) == 1:
            return
        spelled = (
            f" A text that spells {self.pooler.token} has it as a token only if the model has parse_special_tokens: "
            "true, or if the prompt spells a special token."
        )
        raise InvalidInput(
            f"{where} has {f'{count} tokens' if count else 'no token'} {self.pooler.token}, and pooling "
            f"{self.pooler.spec} of model {self.name!r} takes the one. Write it once, in the prompt or in the text."
            f"{'' if count else spelled}",
            where=where,
        )

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return min(self.head.output_dim, self.truncate_dim or self.head.output_dim)

    def with_pooling(self, spec: Spec) -> Recipe:
        """Return the recipe with another pooling that a request asks for.

        Raises:
            InvalidInput: the pooling cannot be built, is learned, or does not fit the head.
        """
        dim = self.pooler.dim
        try:
            if spec == "declared" and self.checkpoint.pooler is not None:
                return self.with_pooler(load_pooler({"weights": str(self.checkpoint.pooler)}, dim), declared=True)
            spec = declared_or(spec, self.checkpoint, "pooling")
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draft = pooling.build(spec, dim)  # costs no memory, whatever is asked for
            if draft.output_dim > _MOST_DIMENSIONS:
                raise InvalidInput(
                    f"pooling {draft.spec!r} gives {draft.output_dim} dimensions; the most is {_MOST_DIMENSIONS}.",
                    where=Place("pooling"),
                )
            if not draft.trained:
                raise InvalidInput(
                    f"pooling {draft.spec!r} is learned and has no fitted parameters here. Give it a model of its "
                    "own in the config: pooling: {strategy: ..., weights: path/to/pooler}.",
                    where=Place("pooling"),
                )
            _require_token(draft, self.checkpoint, self.special_tokens)
            return self.with_pooler(pooling.build(spec, dim), declared=draft.spec == self.checkpoint.pooling)
        except (PoolingError, CheckpointError, ConfigError) as error:
            raise InvalidInput(f"pooling {shortened(spec)}: {error}", where=Place("pooling")) from None

    def with_layers(self, spec: LayerSpec, depth: int | None) -> Recipe:
        """Return the recipe over the states of other layers that a request asks for.

        Args:
            spec: the layers, or `declared`.
            depth: how many the encoder gives the states of; None for those of the last alone.

        Raises:
            InvalidInput: they are no layers, or not given here.
        """
        try:
            return replace(self, layers=declared_layers(spec, self.checkpoint, depth))
        except NoLayersError:
            if reason := self.checkpoint.layerless:
                raise InvalidInput(
                    f"layers: model {self.name!r} {reason}. Leave it out.", where=Place("layers")
                ) from None
            raise InvalidInput(
                f"layers: the encoder of model {self.name!r} runs without the states of its layers, which cost time "
                "and memory. Ask for 'last', or give some model of this encoder `layers` in the config, or set "
                "runtime.backend: torch.",
                where=Place("layers"),
            ) from None
        except PoolingError as error:
            raise InvalidInput(f"layers: {error}.", where=Place("layers")) from None

    def with_pooler(self, pooler: Pooler, *, declared: bool = False) -> Recipe:
        """Return the recipe with another pooler; raises `CheckpointError` if it does not fit the head."""
        return replace(self, pooler=pooler, declared=declared, head=Head(self.checkpoint.head, pooler.output_dim))


def declared_layers(spec: LayerSpec, checkpoint: Checkpoint, depth: int | None) -> Layers:
    """Make layers of a spec; `declared` are those of the checkpoint, the last one where it declares none.

    Raises:
        PoolingError: as `layers.build` and `layers.weighted` do.
    """
    if spec != "declared":
        return layers.build(spec, depth)
    if checkpoint.layers is None:
        return LAST
    if depth is None:
        raise NoLayersError("the checkpoint declares layers, and only the states of the last one are known here")
    if checkpoint.layers[-1][0] != depth:
        raise PoolingError(
            f"the checkpoint's WeightedLayerPooling has weights up to layer {checkpoint.layers[-1][0]}, and the "
            f"encoder {depth} layers"
        )
    return layers.weighted(dict(checkpoint.layers), depth)


def needs_layers(name: str, settings: ModelConfig, checkpoint: Checkpoint) -> bool:
    """Return whether a model needs the states of other layers than the last.

    Raises:
        ConfigError: its settings name no layers.
    """
    try:
        declared_layers(settings.layers, checkpoint, None)
    except NoLayersError:
        return True
    except PoolingError as error:
        raise ConfigError(f"models.{name}.layers: {error}.") from None
    return False


def resolve(
    name: str,
    settings: ModelConfig,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    anatomy: Anatomy,
    depth: int | None = None,
) -> Recipe:
    """Make the recipe of a model: what the checkpoint declares wherever the settings say `declared`.

    Args:
        name: the model's name in the config.
        settings: the model's settings in the config.
        checkpoint: what the model's folder declares.
        tokenizer: the folder's tokenizer.
        anatomy: the encoder's sizes.
        depth: how many layers it gives the states of; None for those of the last alone.

    Raises:
        ConfigError, CheckpointError: naming the key or file, and the remedy.
    """
    at = f"models.{name}"
    try:
        used = declared_layers(settings.layers, checkpoint, depth)
    except PoolingError as error:
        raise ConfigError(f"{at}.layers: {error}.") from None
    spec = declared_or(settings.pooling, checkpoint, at)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            weights = isinstance(spec, dict) and "weights" in spec
            pooler = load_pooler(spec, anatomy.dim) if weights else pooling.build(spec, anatomy.dim)
        _require_token(pooler, checkpoint, tokenizer.special_ids)
    except PoolingError as error:
        raise ConfigError(f"{at}.pooling: {error}") from None
    notes = [str(warning.message) for warning in caught]
    head = Head(checkpoint.head, pooler.output_dim)
    normalize = head.normalize if settings.normalize == "declared" else settings.normalize
    prompts = dict(checkpoint.prompts) if settings.prompts == "declared" else settings.prompts
    _check_positions(checkpoint, pooler, prompts, at)
    if settings.trust_remote_code:
        notes.append("trust_remote_code is on: the checkpoint's own code runs in this process")
    declared = settings.pooling == "declared" or (checkpoint.pooler is None and pooler.spec == checkpoint.pooling)
    if checkpoint.pooling is not None and not declared:
        notes.append(f"pooling {pooler.spec!r} overrides the declared {checkpoint.pooling!r}")
    if checkpoint.pooling is not None and normalize != head.normalize:
        notes.append(f"normalize {normalize} overrides the declared {head.normalize}")
    if checkpoint.idle_layers and settings.layers == "declared":
        notes.append(
            "it declares WeightedLayerPooling, which sentence-transformers passes over, and so does this: config.json"
            " does not say output_hidden_states; set `layers` if other layers than the last are meant"
        )
    notes += _doubts(settings, checkpoint, prompts)
    if checkpoint.similarity not in SIMILARITIES:
        notes.append(
            f"its similarity is declared as {checkpoint.similarity!r}, by which collections are not searched; "
            f"known are {', '.join(SIMILARITIES)}"
        )
    if not pooler.trained:
        notes.append(f"pooling {pooler.spec!r} is learned and untrained; give it fitted weights")
    found = Recipe(
        name=name,
        checkpoint=checkpoint,
        pooler=pooler,
        layers=used,
        special_tokens=tokenizer.special_ids,
        declared=declared,
        head=head,
        normalize=normalize,
        max_tokens=most_tokens(
            settings.max_tokens, checkpoint, tokenizer, anatomy.positions, tokenizer.num_special, at
        ),
        prompts=prompts,
        include_prompt=checkpoint.include_prompt,
        default_prompt=checkpoint.default_prompt if checkpoint.default_prompt in prompts else None,
        truncate_dim=checkpoint.truncate_dim,
        truncate=settings.truncate,
        warnings=tuple(notes),
    )
    if checkpoint.pooling is None or found.layers_declared:
        return found
    declared_ones = "layers" if checkpoint.layers else "last layer"
    return replace(found, warnings=(*notes, f"pooling the {used} overrides the declared {declared_ones}"))


def _require_token(pooler: Pooler, checkpoint: Checkpoint, special_tokens: Mapping[str, int]) -> None:
    """Raise `PoolingError` if the pooling is of a token that tells nothing here, or is no special one."""
    if isinstance(pooler, Token) and checkpoint.table is not None:
        raise PoolingError(
            f"{checkpoint.name} is a static model, whose tokenizer puts no {pooler.token} around a text, and where "
            "the vector of a token is the same in every text. Choose mean, or another pooling of all tokens"
        )
    if isinstance(pooler, Token) and pooler.token not in special_tokens:
        raise PoolingError(
            f"{pooler.token!r} is no special token of {checkpoint.name}, which has "
            f"{', '.join(map(repr, special_tokens)) or 'none'}.{did_you_mean(pooler.token, special_tokens)}"
        )


def declared_or(spec: Any, checkpoint: Checkpoint, at: str) -> Any:
    """Replace the spec `declared` by the pooling declared; a learned one becomes a mapping with `weights`.

    Raises:
        ConfigError: the checkpoint declares none.
    """
    if spec != "declared":
        return spec
    if checkpoint.pooling is None:
        advice = (
            "'last' if it was trained for that, else 'weighted_mean' (a token sees only those before it)"
            if checkpoint.causal
            else "'mean' unless it was trained for another, such as 'cls'"
        )
        others = ", ".join(pooling.available())
        raise ConfigError(
            f"{at}: {checkpoint.name} declares no pooling, so one must be chosen. This encoder is "
            f"{'causal' if checkpoint.causal else 'bidirectional'}: {advice}. There are: {others}."
            f"{_RANKS if checkpoint.classifies else ''}"
        )
    return checkpoint.pooling if checkpoint.pooler is None else {"weights": str(checkpoint.pooler)}


def load_pooler(spec: Mapping[str, Any], dim: int) -> Pooler:
    """Load a saved pooler from the folder `weights`; other options in the spec must agree with it.

    Raises:
        PoolingError: the pooler cannot be read, is for states of another size, or contradicts the spec.
    """
    options = dict(spec)
    path = options.pop("weights")
    if not isinstance(path, str):
        raise PoolingError(f"weights must be the folder of a saved pooler, not {path!r}")
    pooler = pooling.load(path)
    if pooler.dim != dim:
        raise PoolingError(f"{path} was fitted for token states of {pooler.dim} dimensions; this encoder has {dim}")
    saved = pooler.config()
    for option, value in options.items():
        if saved.get(option) != value:
            raise PoolingError(f"{path} holds {pooler.spec!r}, which is not {option}: {value!r}; leave that out")
    return pooler


def _check_positions(checkpoint: Checkpoint, pooler: Pooler, prompts: Mapping[str, str], at: str) -> None:
    if any(prompts.values()) and not checkpoint.include_prompt and "weighted_mean" in pooler.spec:
        raise ConfigError(
            f"{at}: weighted_mean without the prompt's tokens is ambiguous: sentence-transformers counts positions "
            "from the prompt on, Millpond from the first token that counts. Choose another pooling, or prompts: {}."
        )


def _doubts(settings: ModelConfig, checkpoint: Checkpoint, prompts: Mapping[str, str]) -> list[str]:
    """Return what is doubtful about prompts: a role may lack its own, or only the README tells of them."""
    named = [name for name, text in prompts.items() if text]
    if named and not role_prompts(prompts):
        return [
            f"no prompt is called query or document, or by another usual name of the two, but {', '.join(named)}: "
            "collections and searches use none; set `prompts` with those names"
        ]
    unused = without_prompt(prompts, checkpoint.default_prompt)
    if unused and (settings.prompts == "declared" or unused[0] not in prompts):
        role, names = unused
        return [
            f"no prompt is called {role}, or by another usual name of it, so texts of this role have none, and no "
            f"role uses {', '.join(names)}; if one is meant, set `prompts` with the name {role}, else with {role}: ''"
        ]
    if not named and settings.prompts == "declared" and (quoted := quoted_prompts(checkpoint.folder)):
        return [
            f"no prompt is declared, and the README speaks of {', '.join(map(repr, quoted))}; if texts are to begin "
            "so, set `prompts`, such as {query: 'query: ', document: 'passage: '}, else `prompts: {}`"
        ]
    return []
