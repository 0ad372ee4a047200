"""The models of a deployment, by name: encoders loaded once, embedders over them."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import torch

import pooling
from pooling import Pooler, PoolingError
from service.checkpoint import Checkpoint, read_checkpoint
from service.config import Config, ModelConfig
from service.embedder import Embedder
from service.encoder import Encoder
from service.errors import CheckpointError, ConfigError, InvalidInput, UnknownModel, did_you_mean
from service.head import Head

logger = logging.getLogger(__name__)

Spec = str | Mapping[str, Any] | list[Any]

_MOST_VARIANTS: Final = 128
"""Poolings other than the configured ones that stay built."""
_MOST_DIMENSIONS: Final = 65_536
"""The largest pooled vector that a request may ask for."""


class Models:
    """Loads every model that a config names.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.

    """

    def __init__(self, config: Config) -> None:
        self._encoders: dict[tuple[Any, ...], Encoder] = {}
        self._models: dict[str, Embedder] = {}
        self.settings = dict(config.models)
        self.warnings: dict[str, list[str]] = {}
        try:
            for name, settings in config.models.items():
                self._models[name] = self._load(name, settings, config)
        except BaseException:
            self.close()
            raise
        self.default = "default" if "default" in self._models else next(iter(self._models))
        self._building = threading.Lock()
        self._variant = lru_cache(maxsize=_MOST_VARIANTS)(self._build_variant)

    def __iter__(self) -> Any:
        return iter(self._models.items())

    def get(self, name: str | None = None, spec: Spec | None = None) -> Embedder:
        """An embedder by name (the default one for None), with another pooling where `spec` gives one.

        Raises:
            UnknownModel: no model has this name.
            InvalidInput: the pooling cannot be built, is learned, or does not fit the model's head.

        """
        model = self._models.get(self.default if name is None else name)
        if model is None:
            raise UnknownModel(
                f"no model is named {name!r}; served are {', '.join(map(repr, self._models))}."
                f"{did_you_mean(name or '', self._models)}",
                where="model",
            )
        if spec is None or (spec == "declared" and model.pooler.spec == model.encoder.checkpoint.pooling):
            return model
        with self._building:
            return self._variant(model, json.dumps(spec, sort_keys=True))

    @property
    def alive(self) -> bool:
        """Whether every encoder's queue runs."""
        return all(encoder.batcher.alive for encoder in self._encoders.values())

    @property
    def encoders(self) -> list[Encoder]:
        """The encoders, each once."""
        return list(self._encoders.values())

    def close(self) -> None:
        """Stop all queues."""
        for encoder in self._encoders.values():
            encoder.close()

    def _build_variant(self, model: Embedder, spec_json: str) -> Embedder:
        spec = json.loads(spec_json)
        checkpoint = model.encoder.checkpoint
        try:
            spec = _declared_or(spec, checkpoint)
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draft = pooling.build(spec, model.encoder.dim)  # costs no memory, whatever is asked for
            if draft.output_dim > _MOST_DIMENSIONS:
                raise InvalidInput(
                    f"pooling {draft.spec!r} gives {draft.output_dim} dimensions; the most is {_MOST_DIMENSIONS}.",
                    where="pooling",
                )
            if not draft.trained:
                raise InvalidInput(
                    f"pooling {draft.spec!r} is learned and has no fitted parameters here. Give it a model of its "
                    "own in the config: pooling: {strategy: ..., weights: path/to/pooler}.",
                    where="pooling",
                )
            pooler = pooling.build(spec, model.encoder.dim)
            head = Head(checkpoint.head, pooler.output_dim)
        except (PoolingError, CheckpointError, ConfigError) as error:
            raise InvalidInput(f"pooling {spec!r}: {error}", where="pooling") from None
        logger.info("model %r: built pooling %s on request", model.name, pooler.spec)
        return Embedder(
            model.name,
            model.encoder,
            pooler,
            head,
            normalize=model.normalize,
            max_tokens=model.max_tokens,
            prompts=model.prompts,
            include_prompt=model.include_prompt,
            default_prompt=model.default_prompt,
            truncate_dim=model.truncate_dim,
        )

    def _load(self, name: str, settings: ModelConfig, config: Config) -> Embedder:
        checkpoint = read_checkpoint(settings.encoder, settings.revision)
        at = f"models.{name}"
        notes: list[str] = []
        key = (checkpoint.transformer.resolve(), checkpoint.lower_case, settings.trust_remote_code)
        spec: Any = _declared_or(settings.pooling, checkpoint, at)
        if key not in self._encoders:
            logger.info("loading %s from %s", settings.encoder, checkpoint.transformer)
            self._encoders[key] = Encoder(
                checkpoint, config.runtime, config.batching, trust_remote_code=settings.trust_remote_code
            )
        encoder = self._encoders[key]
        pooler = _configured_pooler(spec, encoder.dim, at, notes.append)
        head = Head(checkpoint.head, pooler.output_dim)
        normalize = head.normalize if settings.normalize == "declared" else settings.normalize
        prompts = dict(checkpoint.prompts) if settings.prompts == "declared" else settings.prompts
        _check_positions(checkpoint, pooler, prompts, at)
        if settings.trust_remote_code:
            notes.append("trust_remote_code is on: the checkpoint's own code runs in this process")
        if checkpoint.pooling is not None and pooler.spec != checkpoint.pooling:
            notes.append(f"pooling {pooler.spec!r} overrides the declared {checkpoint.pooling!r}")
        if checkpoint.pooling is not None and normalize != head.normalize:
            notes.append(f"normalize {normalize} overrides the declared {head.normalize}")
        if not pooler.trained:
            notes.append(f"pooling {pooler.spec!r} is learned and untrained; give it fitted weights")
        for note in notes:
            logger.warning("%s: %s", at, note)
        self.warnings[name] = notes
        return Embedder(
            name,
            encoder,
            pooler,
            head,
            normalize=normalize,
            max_tokens=_max_tokens(checkpoint, encoder, settings, at),
            prompts=prompts,
            include_prompt=checkpoint.include_prompt,
            default_prompt=checkpoint.default_prompt if checkpoint.default_prompt in prompts else None,
            truncate_dim=checkpoint.truncate_dim,
        )


def _declared_or(spec: Any, checkpoint: Checkpoint, at: str = "pooling") -> Any:
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
        )
    return checkpoint.pooling


def _configured_pooler(spec: Any, dim: int, at: str, note: Callable[[str], None]) -> Pooler:
    """Build the pooling of a config, or load it where it names fitted weights."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(spec, dict) and "weights" in spec:
                pooler = _load_pooler(dict(spec), dim)
            else:
                pooler = pooling.build(spec, dim)
    except PoolingError as error:
        raise ConfigError(f"{at}.pooling: {error}") from None
    for warning in caught:
        note(str(warning.message))
    return pooler


def _load_pooler(spec: dict[str, Any], dim: int) -> Pooler:
    path = spec.pop("weights")
    if not isinstance(path, str):
        raise PoolingError(f"weights must be the folder of a saved pooler, not {path!r}")
    pooler = pooling.load(path)
    if pooler.dim != dim:
        raise PoolingError(f"{path} was fitted for token states of {pooler.dim} dimensions; this encoder has {dim}")
    saved = pooler.config()
    for option, value in spec.items():
        if saved.get(option) != value:
            raise PoolingError(f"{path} holds {pooler.spec!r}, which is not {option}: {value!r}; leave that out")
    return pooler


def _check_positions(checkpoint: Checkpoint, pooler: Pooler, prompts: Mapping[str, str], at: str) -> None:
    if prompts and not checkpoint.include_prompt and "weighted_mean" in pooler.spec:
        raise ConfigError(
            f"{at}: weighted_mean without the prompt's tokens is ambiguous: sentence-transformers counts positions "
            "from the prompt on, Millpond from the first token that counts. Choose another pooling, or prompts: {}."
        )


def _max_tokens(checkpoint: Checkpoint, encoder: Encoder, settings: ModelConfig, at: str) -> int:
    limits = [checkpoint.position_limit]
    if settings.max_tokens != "declared":
        limits.append(settings.max_tokens)
        if checkpoint.position_limit is not None and settings.max_tokens > checkpoint.position_limit:
            raise ConfigError(
                f"{at}.max_tokens: {settings.max_tokens} is more than the {checkpoint.position_limit} positions "
                f"that {checkpoint.name} has."
            )
    else:
        limits.append(checkpoint.max_tokens or encoder.tokenizer.declared_limit)
    known = [limit for limit in limits if limit is not None]
    if not known:
        raise ConfigError(f"{at}.max_tokens: {checkpoint.name} declares no longest text; give a number here.")
    if min(known) <= encoder.tokenizer.num_special:
        raise ConfigError(
            f"{at}.max_tokens: {min(known)} leaves no room beside the {encoder.tokenizer.num_special} special tokens."
        )
    return min(known)
