"""Registry of strategies: `build("gem(p=3)", 384)`, `load(folder)`, and plugins of other packages.

The short form is a name, a name with options, parts joined by `+`, or stages joined by `>`:
`mean`, `gem(p=3)`, `mean + max`, `window(size=8, stride=4, by=max) > mean`. It is parsed as a Python expression
by `ast`; nothing in it is ever evaluated.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import warnings
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pooling.base import CONFIG_FILE, PARAMETERS_FILE, REQUIRED, Component, Pooler, PoolingError, Stage, options_of
from pooling.between import KMax, LogSumExp
from pooling.compose import Adaptive, Concatenation, Sequence, Windows
from pooling.fixed import Cls, Last, Max, Mean, MeanSqrtLen, Token, WeightedMean
from pooling.learned import Attention, Gated, GeM, MultiHeadAttention
from pooling.piecewise import Piecewise

ENTRY_POINT_GROUP: Final = "millpond.poolers"
MAX_SPEC_LENGTH: Final = 1000
_LITERALS: Final = {"true": True, "false": False}
"""The spellings of YAML; those of Python are literals already."""

Spec = str | Mapping[str, Any] | list[Any]

_POOLERS: Final[dict[str, type[Pooler]]] = {
    cls.name: cls
    for cls in (
        *(Cls, Mean, MeanSqrtLen, WeightedMean, Max, Last, Token),
        *(KMax, LogSumExp, Piecewise),
        *(Attention, MultiHeadAttention, Gated, GeM),
    )
}
_STAGES: Final[dict[str, type[Stage]]] = {cls.name: cls for cls in (Windows, Adaptive)}
_COMPOSITES: Final = {Concatenation.name: "parts", Sequence.name: "stages"}


class PluginWarning(UserWarning):
    """A strategy provided by another package cannot be used."""


def available() -> dict[str, type[Pooler]]:
    """Return the strategies by name: the built-in ones, then those of entry points (`millpond.poolers`).

    Warns:
        PluginWarning: a plugin is left out, with the reason.
    """
    plugins, refused = _plugins()
    for message in refused.values():
        warnings.warn(message, PluginWarning, stacklevel=2)
    return _POOLERS | plugins


def stages() -> dict[str, type[Stage]]:
    """Return by name the stages that can precede a strategy in a sequence and are not strategies themselves."""
    return dict(_STAGES)


def describe_options(cls: type[Component]) -> str:
    """Return the options of a strategy with their defaults as a line of text."""
    return ", ".join(f"{o} (required)" if d is REQUIRED else f"{o}={d}" for o, d in options_of(cls).items())


def build(spec: Spec, dim: int) -> Pooler:
    """Build a strategy.

    Args:
        spec: the short form (see the module), `{"strategy": name, **options}` as returned by `config()`, or a
            list of either, to be concatenated.
        dim: size of a token state.

    Raises:
        PoolingError: the strategy or an option is unknown, a value is bad, or the spec is malformed.
    """
    try:
        component = _build(spec, dim)
    except RecursionError:
        raise PoolingError("the pooling is nested too deeply") from None
    if not isinstance(component, Pooler):
        raise PoolingError(
            f"{component.spec!r} makes tokens, not a vector; pool them, as in '{component.spec} > mean'"
        )
    return component


def load(folder: str | Path) -> Pooler:
    """Load a strategy from a folder written by `Pooler.save`.

    Raises:
        PoolingError: a file is missing or damaged, or its parameters do not fit or are not finite.
    """
    folder = Path(folder)
    description = _read_description(folder / CONFIG_FILE)
    pooler = build(description["config"], description["config"]["dim"])
    path = folder / PARAMETERS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PoolingError(f"{path}: cannot be read: {error}") from error
    expected = pooler.state_dict()
    if tensors.keys() != expected.keys():
        raise PoolingError(f"{path}: holds {sorted(tensors)}, but {pooler.spec} has {sorted(expected)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, but {pooler.spec} needs {tuple(expected[name].shape)}"
            raise PoolingError(f"{path}: {name} has shape {shapes}")
        if not torch.isfinite(tensor).all():
            raise PoolingError(f"{path}: {name} is not finite")
    pooler.load_state_dict(tensors)
    if description["trained"]:
        pooler.mark_trained()
    return pooler


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise PoolingError(f"{path}: not found; a folder that a pooler was saved to has this file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PoolingError(f"{path}: cannot be read: {error}") from error
    match description:
        case {"format": 1, "config": {"dim": int()}, "trained": bool()}:
            return dict(description)
        case {"format": int(version)} if version != 1:
            raise PoolingError(f"{path}: format {version}, where this version reads format 1")
        case _:
            raise PoolingError(f"{path}: not the description of a pooler")


def _build(spec: Any, dim: int) -> Component:
    match spec:
        case str():
            return _build(_parse(spec), dim)
        case list():
            return _build({"strategy": Concatenation.name, "parts": spec}, dim)
        case {"strategy": str(name)}:
            options = {option: value for option, value in spec.items() if option != "strategy"}
            if not options and not name.isidentifier():
                return _build(_parse(name), dim)
            if options.pop("dim", dim) != dim:
                raise PoolingError(f"{name}: was made for states of dimension {spec['dim']}, not {dim}")
            return _instantiate(name, options, dim)
    raise PoolingError(f"a pooling is a string, a list, or a mapping with 'strategy', not {_short(spec)}")


def _instantiate(name: str, options: dict[str, Any], dim: int) -> Component:
    if name in _COMPOSITES:
        return _compose(name, options, dim)
    cls = _find_class(name)
    accepted = options_of(cls)
    if unknown := [option for option in options if option not in accepted]:
        hint = _did_you_mean(str(unknown[0]), accepted)
        raise PoolingError(
            f"{name} has no option {_short(unknown[0])}{hint}; accepted: {describe_options(cls) or 'none'}"
        )
    if missing := [option for option, default in accepted.items() if default is REQUIRED and option not in options]:
        raise PoolingError(f"{name} needs {', '.join(missing)}{f', as in {cls.example}' if cls.example else ''}")
    try:
        return cls(dim, **options)
    except (TypeError, ValueError) as error:
        raise PoolingError(f"{name}: {error}") from error


def _compose(name: str, options: dict[str, Any], dim: int) -> Component:
    key = _COMPOSITES[name]
    parts = options.get(key)
    if options.keys() != {key} or not isinstance(parts, list):
        raise PoolingError(f"{name} takes '{key}', a list, and nothing else")
    components = [_build(part, dim) for part in parts]
    return Concatenation(components) if name == Concatenation.name else Sequence(components)


def _find_class(name: str) -> type[Component]:
    if built_in := _POOLERS.get(name) or _STAGES.get(name):
        return built_in
    plugins, refused = _plugins()
    if name in plugins:
        return plugins[name]
    if name in refused:
        raise PoolingError(refused[name])
    known = [*_POOLERS, *plugins, *_STAGES]
    raise PoolingError(f"unknown pooling {_short(name)}{_did_you_mean(name, known)}; known: {', '.join(known)}")


def _plugins() -> tuple[dict[str, type[Pooler]], dict[str, str]]:
    """Return the usable strategies of other packages, and for each unusable one the reason."""
    usable: dict[str, type[Pooler]] = {}
    refused: dict[str, str] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        name = entry_point.name
        plugin = f"pooling {name!r} of package {entry_point.dist.name if entry_point.dist else 'unknown'!r}"
        if name in _POOLERS or name in _STAGES or name in _COMPOSITES or name in usable:
            refused[name] = f"{plugin} is refused: the name is taken"
            continue
        try:
            usable[name] = _load_plugin(entry_point)
        except Exception as error:  # importing a foreign module can raise anything
            refused[name] = f"{plugin} cannot be used: {type(error).__name__}: {error}"
    return usable, refused


def _load_plugin(entry_point: EntryPoint) -> type[Pooler]:
    cls = entry_point.load()
    if not (isinstance(cls, type) and issubclass(cls, Pooler)) or inspect.isabstract(cls):
        raise TypeError(f"{entry_point.value} is not a Pooler that can be made")
    if getattr(cls, "name", None) != entry_point.name:
        raise TypeError(f"{entry_point.value} calls itself {getattr(cls, 'name', None)!r}")
    return cls


def _parse(text: str) -> dict[str, Any]:
    """Parse the short form into the form of `config()`."""
    if len(text) > MAX_SPEC_LENGTH:
        raise PoolingError(f"a pooling has at most {MAX_SPEC_LENGTH} characters, not {len(text)}")
    try:
        return _describe(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        if isinstance(error, PoolingError):
            raise
        raise _malformed(text) from None


def _describe(node: ast.expr) -> dict[str, Any]:
    match node:
        case ast.Name(name):
            return {"strategy": name}
        case ast.Call(ast.Name(name), values, keywords):
            named = [*zip(_required(name) if values else [], values, strict=False), *map(_keyword, keywords)]
            options = {option: _value(option, value) for option, value in named}
            if len(options) < len(values) + len(keywords) or "strategy" in options:
                raise _malformed(ast.unparse(node))
            return {"strategy": name, **options}
        case ast.BinOp(left, ast.Add(), right):
            return {"strategy": Concatenation.name, "parts": [_describe(left), _describe(right)]}
        case ast.Compare(first, operators, rest) if all(isinstance(o, ast.Gt) for o in operators):
            return {"strategy": Sequence.name, "stages": [_describe(stage) for stage in (first, *rest)]}
    raise _malformed(ast.unparse(node))


def _required(name: str) -> list[str]:
    """Return the options of a strategy that may be given without their names, in order: those without a default."""
    return [option for option, default in options_of(_find_class(name)).items() if default is REQUIRED]


def _keyword(keyword: ast.keyword) -> tuple[str, ast.expr]:
    if keyword.arg is None:
        raise _malformed(ast.unparse(keyword))
    return keyword.arg, keyword.value


def _value(option: str, value: ast.expr) -> Any:
    if isinstance(value, ast.Name):
        return _LITERALS.get(value.id, value.id)
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise PoolingError(f"{option}={_short(ast.unparse(value))}: must be a plain value") from None


def _malformed(text: str) -> PoolingError:
    return PoolingError(
        f"cannot read the pooling {_short(text)}: write it as 'mean', 'gem(p=3)', 'mean + max' "
        "or 'window(size=8, stride=4) > mean'"
    )


def _did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
