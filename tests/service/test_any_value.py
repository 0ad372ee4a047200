"""Property: whatever a filter, a pooling, a config or a model folder holds, it is read or refused in words."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pooling
from pooling import PoolingError
from service.checkpoint import read_checkpoint
from service.config import Config, load_config, make_config
from service.embedding.models import Models
from service.errors import CheckpointError, ConfigError, InvalidFilter, ServiceError
from service.store.filters import compile_filter
from tests.support.applications import EXPORTED

NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 0.5, math.nan, math.inf, -math.inf, 1e308, -0.0]
scalars = (
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.text(max_size=6) | st.just("\ud800") | st.just("\0")
)


def values(keys: st.SearchStrategy[Any], leaves: st.SearchStrategy[Any] = scalars) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


def nested(levels: int, key: str, inner: Any) -> Any:
    for _ in range(levels):
        inner = {key: inner}
    return inner


operators = ["$and", "$or", "$not", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains"]
operators += ["$icontains", "$exists", "$x", "$", "", "a", "a.b", ".", "a..b", "\\", "a\\", "\\$a", "\ud800", "a\0"]
filters = values(st.sampled_from(operators) | st.text("ab.$\\", max_size=4)) | st.builds(
    nested, st.integers(0, 3000), st.sampled_from(["$not", "a", "$eq"]), scalars
)


@given(expression=filters)
def test_a_filter(expression: Any) -> None:
    try:
        compile_filter(expression)
    except InvalidFilter as error:
        assert 10 < len(error.detail) < 2000 and str(error.where) == "filter"


names = ["mean", "cls", "last", "max", "gem", "attention", "multihead_attention", "gated", "window", "adaptive"]
options = ["p", "heads", "size", "stride", "by", "parts", "stages", "strategy", "dim", "x", ""]
short = st.text("amen gp=()+>,1.-'[]{}_*", max_size=30) | st.builds(
    "{}({}={})".format, st.sampled_from(names), st.sampled_from(options), st.sampled_from([*NUMBERS, "mean", "[]"])
)
specs = (
    short
    | st.builds(
        lambda part, times: part * times, st.sampled_from(["(", "mean+", "-", "[", "mean>"]), st.integers(0, 900)
    )
    | values(st.sampled_from(options), st.sampled_from(names) | scalars)
    | st.builds(
        dict, st.dictionaries(st.sampled_from(options), values(st.text(max_size=2)), max_size=3), strategy=short
    )
    | st.builds(lambda n: nested(n, "parts", "mean") | {"strategy": "concat"}, st.integers(1, 3000))
)


@given(spec=specs)
def test_a_pooling(spec: Any) -> None:
    try:
        assert pooling.build(spec, 12).spec
    except PoolingError as error:
        assert 10 < len(str(error)) < 2000


sections = [
    *Config.model_fields,
    "default",
    "encoder",
    "pooling",
    "prompts",
    "path",
    "port",
    "host",
    "threads",
    "x",
    1,
]
sections += [key for field in Config.model_fields.values() for key in getattr(field.annotation, "model_fields", ())]
configs = st.dictionaries(
    st.sampled_from(sections) | scalars.filter(lambda key: key == key), values(st.sampled_from(sections)), max_size=4
)


@given(written=configs, model=values(st.sampled_from(sections)))
def test_a_config(written: dict[Any, Any], model: Any) -> None:
    for given_values in (written, {"models": {"default": model}} | written):
        try:
            make_config(given_values, "a test", env={})
        except ConfigError as error:
            assert 10 < len(error.detail) < 20_000


@given(content=st.binary(max_size=60) | st.text("abc:{}[]&*!|>-\"'\n #%@`0.", max_size=60).map(str.encode))
def test_the_text_of_a_config(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_config(file, env={})
        assert str(file) in str(caught.value)


FILES = sorted(str(path.relative_to(EXPORTED)) for path in EXPORTED.rglob("*") if path.is_file())
TEXTS = [file for file in FILES if file.endswith(".json") and not file.startswith("tokenizer")]


def _changed(data: st.DataObject, file: Path) -> None:
    """Make something else of a file of a model folder."""
    content = file.read_bytes()
    kinds = ["gone", "cut", "flipped", "folder", "deep", *(["value"] if file.suffix == ".json" else [])]
    match data.draw(st.sampled_from(kinds)):
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "flipped":
            place = data.draw(st.integers(0, min(len(content), 2000) - 1))
            file.write_bytes(
                content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
            )
        case "folder":
            file.unlink()
            file.mkdir()
        case "deep":
            file.write_text("[" * 100_000)
        case "value":
            told = json.loads(content)
            entries = told if isinstance(told, dict) else told[0]
            changes = st.dictionaries(st.sampled_from([*entries, "architectures", "x"]), values(st.text(max_size=3)))
            entries.update(data.draw(changes))
            file.write_text(json.dumps(told))


@given(data=st.data())
def test_a_model_folder(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        model = Path(shutil.copytree(EXPORTED, Path(folder) / "model"))
        _changed(data, model / data.draw(st.sampled_from(FILES)))
        try:
            assert read_checkpoint(str(model)).causal in (True, False)
        except CheckpointError as error:
            assert str(model) in error.detail and len(error.detail) < 5000


@pytest.mark.slow
@settings(max_examples=200)
@given(data=st.data())
def test_a_model_that_is_loaded(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        model = Path(shutil.copytree(EXPORTED, Path(folder) / "model"))
        _changed(data, model / data.draw(st.sampled_from(FILES)))
        runtime = {"backend": "torch", "precision": "fp32", "threads": 1}
        config = Config.model_validate({"models": {"default": {"encoder": str(model)}}, "runtime": runtime})
        try:
            Models(config).close()
        except (ServiceError, PoolingError) as error:
            assert 10 < len(str(error)) < 5000
