"""`millpond keys`: the file of a service's API keys."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
import yaml
from rich.table import Table

from service.access import digest, new_key
from service.cli.console import Failure, err, out, say
from service.config import KeyConfig, Scope, read_keys
from service.errors import did_you_mean

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of a service.")

_File = Annotated[
    Path,
    typer.Option(
        "--file",
        "-f",
        envvar="MILLPOND_ACCESS__KEYS_FILE",
        help="The file of keys, which access.keys_file names: YAML, or JSON where it is called .json.",
    ),
]
_Name = Annotated[str, typer.Argument(help="What the key is called.")]
_DEFAULT = Path("keys.yaml")


@app.callback()
def _group() -> None:
    """Make, list and revoke the API keys of a service.

    The file holds their SHA-256 and never a key. A service reads it again within a second of a change.
    """


@app.command()
def new(
    name: _Name,
    file: _File = _DEFAULT,
    scopes: Annotated[
        str, typer.Option(help=f"What it is for, with commas: {', '.join(get_args(Scope))}; admin is everything.")
    ] = "embed,search",
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="The most requests.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="The most tokens.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="The most tokens.")] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="A date or time from which on it is no key any more; in UTC unless it says.",
        ),
    ] = None,
    unless_there: Annotated[
        bool, typer.Option("--unless-there", help="Do nothing where there is a key of this name.")
    ] = False,
) -> None:
    """Make a key and print it: the only time that it is shown, since the file keeps its hash alone."""
    key = new_key()
    config = KeyConfig(
        hash=digest(key),
        scopes=_scopes(scopes),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        expires=expires,
    )
    with _changed(file) as keys:
        if name in keys and unless_there:
            err.print(f"{file} has a key {name!r} already.")
            return
        if name in keys:
            raise Failure(f"{file} has a key {name!r} already. Choose another name, or revoke that one first.", 2)
        keys[name] = config
    err.print(f"Key {name!r} for {', '.join(config.scopes)} is in {file}. Keep it; it is not shown again:")
    say(key)


@app.command("list")
def list_all(file: _File = _DEFAULT) -> None:
    """List the keys of a file, with what they are for and their limits."""
    table = Table(box=None, pad_edge=False)
    for header in ("name", "scopes", "requests a minute", "tokens a minute", "tokens a day", "expires"):
        table.add_column(header, overflow="fold", justify="right" if " a " in header else "left")
    for name, key in read_keys(file).items():
        limits = (key.requests_per_minute, key.tokens_per_minute, key.tokens_per_day)
        table.add_row(name, ", ".join(key.scopes), *(str(limit or "") for limit in limits), _expiry(key))
    out.print(table)


@app.command()
def revoke(name: _Name, file: _File = _DEFAULT) -> None:
    """Take a key out of a file, so that it is none any more."""
    with _changed(file) as keys:
        if name not in keys:
            raise Failure(f"{file} has no key {name!r}; it has {', '.join(map(repr, keys)) or 'none'}.", 2)
        del keys[name]
    err.print(f"Key {name!r} is none any more, within a second where a service runs.")


def _scopes(given: str) -> list[Scope]:
    known: tuple[Scope, ...] = get_args(Scope)
    asked = [part.strip() for part in given.split(",") if part.strip()]
    if unknown := [each for each in asked if each not in known]:
        hint = did_you_mean(unknown[0], known)
        raise Failure(f"--scopes {given!r}: {unknown[0]!r} is none. Scopes are {', '.join(known)}.{hint}", 2)
    return [scope for scope in known if scope in asked]


@contextmanager
def _changed(file: Path) -> Iterator[dict[str, KeyConfig]]:
    """Yield the keys of a file, and write what has become of them, as a whole and for one command at a time."""
    file = file.resolve()
    try:
        with (file.parent / f".{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = read_keys(file) if file.exists() else {}
            before = dict(keys)
            yield keys
            if keys != before:
                _write(file, keys)
    except OSError as error:
        reason = f"{error.strerror or error}. Name a file in a folder that this user can write to."
        raise Failure(f"{file}: {reason}", 2) from None


def _write(file: Path, keys: dict[str, KeyConfig]) -> None:
    """Put a file in the place of the one before at once; a new one is its owner's alone to read."""
    partial = file.with_name(f".{file.name}.partial")
    values = {name: key.model_dump(exclude_none=True) for name, key in keys.items()}
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(_to_json(values) if file.suffix == ".json" else yaml.safe_dump(values, sort_keys=False))
        if file.exists():
            before = file.stat()
            os.fchmod(opened.fileno(), before.st_mode)
            with suppress(PermissionError):
                os.fchown(opened.fileno(), before.st_uid, before.st_gid)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)


def _to_json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, default=datetime.isoformat) + "\n"


def _expiry(key: KeyConfig) -> str:
    if key.expires is None:
        return "never"
    return f"{key.expires:%Y-%m-%d %H:%M} UTC" + (" (over)" if key.expires <= datetime.now(UTC) else "")
