"""Schemathesis against a real server of a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from service.access import digest
from tests.support.applications import EXPORTED
from tests.support.servers import ROOT, Server, environment_without_settings

PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
_SCOPES: Final = ["embed", "search", "write", "admin"]


@dataclass(frozen=True)
class Access:
    """Who may call a server: all, or who has the key."""

    name: str
    key: str | None


OPEN: Final = Access("without keys", None)
LOCKED: Final = Access("with keys", f"millpond_{digest('contract')}")


@contextmanager
def served(access: Access, folder: Path) -> Iterator[Server]:
    """Serve a tiny model, whose store and config are in a folder."""
    encoder = str(EXPORTED)
    config: dict[str, Any] = {
        "models": {"default": {"encoder": encoder, "truncate": True}, "cls": {"encoder": encoder, "pooling": "cls"}},
        "runtime": {"backend": "torch", "threads": 1},
        "server": {"token_ids": "model"},
    }
    if access.key is not None:
        config["access"] = {"keys": {"all": {"hash": digest(access.key), "scopes": _SCOPES}}}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(config))
    with Server(file, folder / "store") as server:
        yield server


def try_out(
    server: Server, access: Access, examples: int, *, phases: Sequence[str] = PHASES, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run phases of Schemathesis with so many examples an operation and phase; returns how it ended.

    `options` are for `subprocess.run`.
    """
    folder = server.store.parent
    shown = f'\n[auth.openapi]\nkey = {{ bearer = "{access.key}" }}\n' if access.key is not None else ""
    config = folder / "schemathesis.toml"
    config.write_text(Path(__file__).with_name("schemathesis.toml").read_text() + shown)
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", config, "--no-color"),
            *("run", f"{server.url}/openapi.json", "--max-examples", str(examples)),
            *("--phases", ",".join(phases)),
        ],
        cwd=folder,  # what it keeps of failures is gone with it
        env={**environment_without_settings(), "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        text=True,
        check=False,
        **options,
    )
