"""Options that more than one command takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from service import exact_json
from service.cli.console import Failure, warn
from service.errors import shortened

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option("--url", envvar="MILLPOND_URL", help="The running service to ask.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Instead of asking a running service, start this deployment inside the command."
    ),
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="MILLPOND_API_KEY", show_envvar=True, help="The key that the service wants.")
]
Collection = Annotated[str, typer.Option("--collection", help="The collection's name.")]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut a text that is too long for the model instead of refusing it.")
]
Filter = Annotated[str | None, typer.Option("--filter", help="""On metadata, as JSON: '{"year": {"$gte": 2020}}'.""")]
Chunking = Annotated[
    str | None,
    typer.Option(
        help="Cut each document into spans with a vector each: tokens=64,overlap=16 or sentence or given; from one "
        "pass over all of it (late chunking), or with ,mode=early each by itself."
    ),
]
Model = Annotated[str | None, typer.Option(help="A model of the service; its default one unless given.")]
PromptName = Annotated[str | None, typer.Option(help="A prompt of the model, put before each text.")]
InputType = Annotated[
    str | None,
    typer.Option(
        help="What the texts are for, query or document, which chooses the prompt, and the route of a Router."
    ),
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="The longest text; by default as declared.")]
Pooling = Annotated[
    str | None,
    typer.Option(
        help="Another pooling than the model's own: cls, 'gem(p=3)', 'mean + max'. See `millpond poolings`."
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        help="Other layers than the model's own whose states are pooled, as a config says it: last, "
        "'{use: [first, last]}', '{last: 4}'."
    ),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        help="Score the best hits anew and order them so: token by token by maxsim, or by a reranker of the service, "
        "model=NAME; with ,depth=50 for how many."
    ),
]


def parse_layers(option: str | None) -> str | dict[str, Any] | None:
    """Parse `--layers`, which is written as in a config, to the `layers` of a request; or raise `Failure`."""
    if option is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(option)
        orjson.dumps(found)  # YAML has values that JSON lacks, such as sets
    except (yaml.YAMLError, ValueError, TypeError):
        found = None
    if not isinstance(found, str | dict):
        raise Failure(
            f"--layers {shortened(option)}: names no layers. Write it as last, '{{use: [first, last]}}' or "
            "'{last: 4}'.",
            2,
        )
    return found


def parse_rerank(option: str | None) -> dict[str, Any] | None:
    """Parse `maxsim`, `model=NAME`, or one with `,depth=50`, to the `rerank` of a search; or raise `Failure`."""
    if option is None:
        return None
    by, comma, further = (part.strip() for part in option.partition(","))
    key, _, depth = (part.strip() for part in further.partition("="))
    if not by or (comma and (key != "depth" or not depth.isascii() or not depth.isdecimal() or len(depth) > 9)):
        raise Failure(f"--rerank {shortened(option)}: write it as maxsim, model=NAME, or maxsim,depth=50.", 2)
    name = by.removeprefix("model=").strip()
    return {**({"by": by} if name == by else {"model": name}), **({"depth": int(depth)} if comma else {})}


def parse_filter(condition: str | None) -> orjson.Fragment | None:
    """Return `--filter` as it is sent; raises `Failure` where it is no JSON object."""
    return parse_object("--filter", condition, '{"year": {"$gte": 2020}}')


def warn_of_filter(answer: Mapping[str, Any]) -> None:
    """Print what of `--filter` can match nothing, as the answer of a service says."""
    for warning in answer.get("warnings", ()):
        warn(f"--filter: {warning}")


def parse_object(flag: str, value: str | None, example: str) -> orjson.Fragment | None:
    """Return an option that is a JSON object, such as `example`, as it is sent, which is as it was written.

    Raises `Failure` where it is none.
    """
    if value is None:
        return None
    parsed, reason = None, ""
    try:
        parsed = exact_json.loads(value.encode(errors="surrogateescape"))
    except orjson.JSONDecodeError as error:
        reason = f" ({error})"
    if not isinstance(parsed, dict):
        raise Failure(f"{flag} {value!r}: is not a JSON object{reason}. Write it as '{example}'.", 2)
    return orjson.Fragment(value)
