"""What a YAML file may say. Every error names the source, the key and the remedy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ConfigError, did_you_mean

ENV_PREFIX = "MILLPOND_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Section):
    """One served model: an encoder and how its token states become a vector."""

    encoder: str = Field(min_length=1, description="`bundled/NAME`, a folder, or a Hugging Face id.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a Hugging Face id.")
    pooling: str | dict[str, Any] | list[Any] = "declared"
    normalize: bool | Literal["declared"] = "declared"
    max_tokens: int | Literal["declared"] = "declared"
    prompts: dict[str, str] | Literal["declared"] = "declared"
    trust_remote_code: bool = False


class RuntimeConfig(_Section):
    """What runs the encoder."""

    backend: Literal["auto", "torch"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | Literal["auto"] = "auto"


class BatchingConfig(_Section):
    """How texts share forward passes. Tokens are counted with their padding."""

    max_batch_tokens: int = Field(default=1024, ge=1)
    max_queued_tokens: int = Field(default=131_072, ge=1)


class StoreConfig(_Section):
    """Where documents live. The path is relative to the working directory."""

    path: Path = Path("data")
    default_collection: str = "default"


class ServerConfig(_Section):
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_texts: int = Field(default=16_384, ge=1, description="Texts or documents in one request.")
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)


class Config(_Section):
    """A whole deployment."""

    models: dict[str, ModelConfig] = Field(min_length=1)
    runtime: RuntimeConfig = RuntimeConfig()
    batching: BatchingConfig = BatchingConfig()
    store: StoreConfig = StoreConfig()
    server: ServerConfig = ServerConfig()


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later duplicate key win in silence; a config may not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key if isinstance(key, str | int) else id(key_node))
        return super().construct_mapping(node, deep=deep)


def load_config(
    path: Path, *, env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file, then lay the environment over it, then the flags.

    Args:
        path: a YAML file.
        env: variables such as ``MILLPOND_SERVER__PORT=9000``; the process's own by default.
        overrides: dotted keys from flags, such as ``{"server.port": 9000}``; ``None`` values are skipped.

    Raises:
        ConfigError: naming the file or variable, the key, and what would be right.
    """
    values = _read_yaml(path)
    sources: dict[tuple[str, ...], str] = {}
    for name, text in sorted((os.environ if env is None else env).items()):
        if name.startswith(ENV_PREFIX) and "__" in name:
            keys = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            _put(values, keys, _yaml_value(text, name), name)
            sources[keys] = f"environment variable {name}"
    for dotted, value in (overrides or {}).items():
        if value is not None:
            keys = tuple(dotted.split("."))
            _put(values, keys, value, dotted)
            sources[keys] = f"--{keys[-1].replace('_', '-')}"
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, str(path), sources)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. Name one with --config; configs/ has examples.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from None
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: a config is a mapping that begins with 'models:'; this is {type(values).__name__}."
        )
    return values


def _yaml_value(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"environment variable {name}: its value is not valid YAML: {text!r}.") from None


def _put(values: dict[str, Any], keys: tuple[str, ...], value: Any, source: str) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{source}: '{key}' is not a section that has keys of its own.")
        values = inner
    values[keys[-1]] = value


def _explain(error: ValidationError, path: str, sources: Mapping[tuple[str, ...], str]) -> str:
    problems: dict[tuple[str, ...], list[str]] = {}
    for item in error.errors(include_url=False):
        keys, fields = _locate(item["loc"])
        if item["type"] == "extra_forbidden":
            text = f"is not a key here.{did_you_mean(keys[-1], fields)} Known keys: {', '.join(fields)}"
        elif item["type"] == "missing":
            text = "is required and missing"
        else:
            text = f"{item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"
        problems.setdefault(keys, []).append(text)
    return "\n".join(
        f"{sources.get(keys, path)}: {'.'.join(keys)}: {' or '.join(dict.fromkeys(texts))}."
        for keys, texts in problems.items()
    )


def _locate(loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Split pydantic's location into config keys (without its union tags) and the fields known beside the last."""
    section: Any = Config
    keys: list[str] = []
    fields: list[str] = []
    for part in map(str, loc):
        if isinstance(section, type) and issubclass(section, BaseModel):
            fields = list(section.model_fields)
            keys.append(part)
            field = section.model_fields.get(part)
            section = field.annotation if field else None
        elif get_origin(section) is dict and isinstance(get_args(section)[1], type):
            keys.append(part)
            fields, section = [], get_args(section)[1]
        else:
            break
    return tuple(keys), fields
