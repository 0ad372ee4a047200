"""`millpond keys`, and commands that ask a service which wants a key."""

from __future__ import annotations

import json
import re
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.access import Keyring
from service.cli import app
from service.cli.console import Failure, out
from service.config import AccessConfig, read_keys
from service.errors import InvalidKey
from tests.support.servers import ROOT, Server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each row of a table be one line, whatever screen there is."""
    monkeypatch.setattr(out, "width", 200)


def keys(*arguments: object) -> tuple[str, str]:
    """Run `millpond keys`; gives what it prints and what it says on standard error."""
    done = CliRunner().invoke(app, ["keys", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_a_key_is_shown_once_and_kept_as_a_hash(file: Path) -> None:
    shown, _ = keys("new", "mine", "--file", file)
    assert re.fullmatch(r"millpond_[0-9a-f]{64}\n", shown)
    key = shown.strip()
    assert key not in file.read_text() and key[-32:] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = Keyring(AccessConfig(keys_file=file)).whose(key)
    assert (found.name, found.config.scopes) == ("mine", ["embed", "search"])


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_what_a_key_may_be_given(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    limits = ("--requests-per-minute", 5, "--tokens-per-minute", 6, "--tokens-per-day", 7)
    keys("new", "a", "-f", file, "--scopes", "admin, write", *limits, "--expires", "2030-01-02")
    keys("new", "b", "-f", file, "--expires", "2030-01-02T03:04:05+01:00")
    if name.endswith("json"):
        assert list(json.loads(file.read_text())) == ["a", "b"]
    first, second = read_keys(file).values()
    assert (first.scopes, first.expires) == (["write", "admin"], datetime(2030, 1, 2, tzinfo=UTC))
    assert (first.requests_per_minute, first.tokens_per_minute, first.tokens_per_day) == (5, 6, 7)
    assert second.expires == datetime(2030, 1, 2, 2, 4, 5, tzinfo=UTC)
    listed = keys("list", "-f", file)[0].splitlines()
    assert listed[1].split() == ["a", "write,", "admin", "5", "6", "7", "2030-01-02", "00:00", "UTC"]
    assert listed[2].split()[:3] == ["b", "embed,", "search"]


def test_a_revoked_key_is_none(file: Path) -> None:
    one, other = (keys("new", name, "-f", file)[0].strip() for name in ("one", "other"))
    file.chmod(0o640)
    keys("revoke", "one", "-f", file)
    ring = Keyring(AccessConfig(keys_file=file))
    assert ring.whose(other).name == "other"
    with pytest.raises(InvalidKey):
        ring.whose(one)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_names_are_taken_once(file: Path) -> None:
    keys("new", "mine", "-f", file)
    before = file.read_text()
    with pytest.raises(Failure, match="has a key 'mine' already"):
        keys("new", "mine", "-f", file)
    assert keys("new", "mine", "-f", file, "--unless-there")[0] == ""
    with pytest.raises(Failure, match="has no key 'other'; it has 'mine'"):
        keys("revoke", "other", "-f", file)
    assert file.read_text() == before


def test_scopes_that_are_none(file: Path) -> None:
    with pytest.raises(Failure, match=r"'serach' is none\. Scopes are .* Did you mean 'search'"):
        keys("new", "mine", "-f", file, "--scopes", "embed,serach")
    assert not file.exists()


def test_a_file_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file or directory"):
        keys("new", "mine", "-f", tmp_path / "none" / "keys.yaml")


@pytest.mark.slow
def test_commands_show_a_key(millpond, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    allowed, other = (keys("new", scope, "--scopes", scope, "-f", file)[0].strip() for scope in ("admin", "search"))
    (tmp_path / "notes.jsonl").write_text('{"id": "a", "text": "a harp"}\n')
    commands = [
        ("index", tmp_path / "notes.jsonl", "--collection", "notes"),
        ("search", "a harp", "--collection", "notes"),
        ("embed", "a harp"),
        ("explain", "a harp"),
        ("documents", "count", "--collection", "notes"),
        ("export", "notes"),
        ("reindex", "notes", "--force"),
        ("collections", "drop", "notes"),
        ("compact",),
    ]
    mean, needs_key = ROOT / "configs" / "mean.yaml", {"MILLPOND_ACCESS__KEYS_FILE": str(file)}
    with Server(mean, tmp_path / "store", needs_key) as server:
        url = {"MILLPOND_URL": server.url}
        for command in commands:
            done = millpond(*command, env=url | {"MILLPOND_API_KEY": allowed})
            assert done.returncode == 0, done.stderr
        assert millpond("embed", "a harp", "--api-key", allowed, env=url).returncode == 0
        for key, words in (
            (None, "this service wants a key. Give it with --api-key, or as MILLPOND_API_KEY."),
            (other, "key 'search' is for search, and POST /embed needs embed"),
            ("wrong", "this is no key of the service"),
            ("schlüssel", "--api-key: a key has printable ASCII characters alone"),
        ):
            refused = millpond("embed", "a harp", *(("--api-key", key) if key else ()), env=url)
            assert refused.returncode in (1, 2) and words in refused.stderr
    with_config = ("embed", "a harp", "--config", mean)
    env = needs_key | {"MILLPOND_SERVER__ALLOWED_HOSTS": "[a]", "MILLPOND_SERVER__ROOT_PATH": "/a"}
    assert millpond(*with_config, env=env).returncode == 0  # in this process, which needs no key of its own
