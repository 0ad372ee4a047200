"""Whose key a client has shown, and what becomes of a file of keys that changes."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from service.access import Keyring, digest, new_key
from service.access import keyring as keyrings
from service.config import AccessConfig, Scope
from service.errors import ConfigError, InvalidKey, QuotaExceeded, RateExceeded
from tests.support.tiers import first_fast


def entry(key: str, **about: Any) -> dict[str, Any]:
    return {"hash": digest(key), "scopes": ["embed"], **about}


def keyring(**keys: dict[str, Any]) -> Keyring:
    return Keyring(AccessConfig.model_validate({"keys": keys}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_keys_are_256_random_bits_with_a_prefix() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100 and all(re.fullmatch(r"millpond_[0-9a-f]{64}", key) for key in made)
    # NIST's example of SHA-256
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_key_is_known_by_its_hash() -> None:
    one, other = new_key(), new_key()
    keys = keyring(one=entry(one), other=entry(other))
    assert (keys.whose(one).name, keys.whose(other).name) == ("one", "other")
    for wrong in ("", "x", one[:-1], one + "0", one.upper(), digest(one), "\udcff"):
        with pytest.raises(InvalidKey, match="no key of the service"):
            keys.whose(wrong)


def test_scopes() -> None:
    every: tuple[Scope, ...] = get_args(Scope)
    for given, allowed in (
        (["embed"], ["embed"]),
        (["search", "write"], ["search", "write"]),
        ([], []),
        (["admin"], [*every]),
    ):
        key = new_key()
        found = keyring(mine=entry(key, scopes=given)).whose(key)
        assert [scope for scope in every if found.may(scope)] == allowed


@pytest.mark.parametrize(
    ("expires", "valid"),
    [
        (lambda now: now - timedelta(seconds=1), False),
        (lambda now: now + timedelta(minutes=5), True),
        (lambda now: (now + timedelta(minutes=5)).replace(tzinfo=None), True),
        (lambda now: (now - timedelta(days=1)).date(), False),
        (lambda now: (now + timedelta(days=1)).date().isoformat(), True),
        (lambda now: f"{now - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}", False),
        (lambda now: (now + timedelta(minutes=1)).isoformat(), True),
    ],
)
def test_expiry(expires: Callable[[datetime], Any], valid: bool) -> None:
    key = new_key()
    keys = keyring(mine=entry(key, expires=expires(datetime.now(UTC))))
    if valid:
        assert keys.whose(key).name == "mine"
    else:
        with pytest.raises(InvalidKey, match="'mine' has expired"):
            keys.whose(key)


def test_limits() -> None:
    key = new_key()
    keys = keyring(mine=entry(key, requests_per_minute=2, tokens_per_minute=10_000, tokens_per_day=20_000))
    mine = keys.whose(key)
    mine.begin_request()
    mine.begin_request()
    with pytest.raises(RateExceeded, match="its 2 requests a minute") as refused:
        mine.begin_request()
    assert 25 <= (refused.value.retry_after or 0) <= 30

    other = keyring(mine=entry(key, tokens_per_minute=10_000, tokens_per_day=20_000)).whose(key)
    other.spend(9_000)
    other.begin_request()
    other.spend(9_000)
    with pytest.raises(QuotaExceeded, match="its 10000 tokens a minute") as exceeded:
        other.begin_request()
    assert 45 <= (exceeded.value.retry_after or 0) <= 49  # for the 8,000 that were on credit
    other.spend(9_000)
    with pytest.raises(QuotaExceeded, match="its 20000 tokens a day") as exceeded:
        other.begin_request()
    assert 28_000 <= (exceeded.value.retry_after or 0) <= 30_300  # for 7,000 at 20,000 a day


@pytest.mark.parametrize("write", first_fast([yaml.safe_dump, json.dumps]))
def test_a_file_is_read_again_when_it_has_changed(file: Path, write: Any) -> None:
    one, other = new_key(), new_key()
    file.write_text(write({"one": entry(one)}))
    keys = Keyring(AccessConfig(keys_file=file))
    assert keys.whose(one).name == "one"
    file.write_text(write({"another": entry(other)}))
    becomes(keys, other, "another")
    becomes(keys, one, None)


@pytest.mark.slow
def test_a_file_is_read_again_when_only_the_system_tells_that_it_has_changed(file: Path) -> None:
    """As where its permissions have, without which the change before could not be read."""
    one, other = new_key(), new_key()
    file.write_text(yaml.safe_dump({"mine": entry(one)}))
    keys = Keyring(AccessConfig(keys_file=file))
    before = file.stat()
    file.write_text(yaml.safe_dump({"mine": entry(other)}))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    becomes(keys, one, None)
    assert keys.whose(other).name == "mine"


@pytest.mark.slow
def test_a_file_behind_a_link_that_is_turned(tmp_path: Path) -> None:
    """As Kubernetes changes a secret that is mounted."""
    one, other = new_key(), new_key()
    for name, key in (("a", one), ("b", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(yaml.safe_dump({"key": entry(key)}))
    link = tmp_path / "data"
    link.symlink_to("a")
    keys = Keyring(AccessConfig(keys_file=link / "keys"))
    assert keys.whose(one).name == "key"
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").replace(link)
    becomes(keys, other, "key")
    becomes(keys, one, None)


def test_what_is_no_file_is_not_waited_for(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pipe into which nobody writes, or a device without end: at the start, at a reload, and in place of a file."""
    key = new_key()
    file.write_text(yaml.safe_dump({"mine": entry(key)}))
    keys = Keyring(AccessConfig(keys_file=file))
    file.unlink()
    os.mkfifo(file)
    becomes(keys, key, "mine")
    with pytest.raises(ConfigError, match=re.escape(f"{file}: is no regular file")):
        keys.reload()
    assert keys.whose(key).name == "mine"
    for other in (file, Path("/dev/zero"), file.parent):
        with pytest.raises(ConfigError, match="Name a file"):
            Keyring(AccessConfig(keys_file=other))


def test_reload_reads_at_once(file: Path) -> None:
    one, other = new_key(), new_key()
    file.write_text(yaml.safe_dump({"one": entry(one)}))
    keys = Keyring(AccessConfig(keys_file=file))
    file.write_text(yaml.safe_dump({"other": entry(other)}))
    keys.reload()
    assert keys.whose(other).name == "other"
    with pytest.raises(InvalidKey):
        keys.whose(one)


def test_what_was_spent_stays_spent(file: Path) -> None:
    key = new_key()
    file.write_text(yaml.safe_dump({"mine": entry(key, requests_per_minute=1)}))
    keys = Keyring(AccessConfig(keys_file=file))
    keys.whose(key).begin_request()
    file.write_text(yaml.safe_dump({"mine": entry(key, requests_per_minute=1), "new": entry(new_key())}))
    keys.reload()
    with pytest.raises(RateExceeded):
        keys.whose(key).begin_request()
    file.write_text(yaml.safe_dump({"mine": entry(key, requests_per_minute=5)}))
    keys.reload()
    keys.whose(key).begin_request()


@pytest.mark.parametrize(
    "content",
    [
        *("a: b: c", "- a", "{mine: {hash: x, scopes: []}}", None),
        "{mine: {hash: !!bool x, scopes: []}}",
        "{mine: {hash: x, scopes: [], expires: 9999-12-31T23:59:59-05:00}}",
        "{mine: {hash: x, scopes: [], expires: '0001-01-01T00:00:00+01:00'}}",
    ],
)
def test_a_file_that_is_broken_changes_nothing(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    file.write_text(yaml.safe_dump({"mine": entry(key)}))
    keys = Keyring(AccessConfig(keys_file=file))
    monkeypatch.setattr(keyrings, "_LOOK_AGAIN", 0.0)
    file.unlink() if content is None else file.write_text(content)
    assert keys.whose(key).name == "mine"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message.startswith(f"the keys stay as they were: {file}: ")
    with pytest.raises(ConfigError, match=re.escape(f"{file}: ")):
        keys.reload()
    assert keys.whose(key).name == "mine"


def test_a_file_can_lose_its_last_key(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    file.write_text(yaml.safe_dump({"mine": entry(key)}))
    keys = Keyring(AccessConfig(keys_file=file))
    file.write_text("")
    keys.reload()
    with pytest.raises(InvalidKey):
        keys.whose(key)
    assert "nobody can call the service" in caplog.text


SAME = f"millpond_{digest('same')}"
"""The same in each process of the tests, whose names it is a part of."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file. `millpond keys new NAME --file "),
        ("", "holds no key, so nobody could call the service"),
        ("- a", "a file of keys is a mapping of their names; this is list"),
        ("{a: {hash: x, scopes: []}}", "a.hash: must be the SHA-256 of a key in 64 hexadecimal digits"),
        (yaml.safe_dump({"a": {"hash": SAME, "scopes": []}}), "a.hash: must be the SHA-256 of a key"),
        (f"a: b: {SAME}", "is not valid YAML: mapping values are not allowed here"),
        (yaml.safe_dump({SAME: {"scopes": []}}), "....hash: is required and missing"),
        (yaml.safe_dump({"a": entry("x", scopes=SAME)}), "a.scopes: input should be a valid list"),
        ("{a: {scopes: []}}", "a.hash: is required and missing"),
        (yaml.safe_dump({"a": {"hash": digest("x")}}), "a.scopes: is required and missing"),
        (yaml.safe_dump({"a": entry("x", scopes=["embd"])}), "'embed', 'search', 'write' or 'admin', not 'embd'"),
        (yaml.safe_dump({"a": entry("x", scope="embed")}), "a.scope: is not a key here. Did you mean 'scopes'?"),
        (yaml.safe_dump({"a": entry("x", requests_per_minute=0)}), "a.requests_per_minute: "),
        (
            yaml.safe_dump({"a": entry("x", expires="soon")}),
            "a.expires: must be a date or a time, such as",
        ),
        (yaml.safe_dump({"a": entry("x", expires=2027)}), "a.expires: must be a date or a time"),
        (yaml.safe_dump({"a": entry(SAME), "b": entry(SAME)}), "keys 'a' and 'b' have the same hash"),
        (yaml.safe_dump({"configured": entry("x")}), "configured: is a key of access.keys too"),
    ],
)
def test_files_that_are_refused_at_the_start(file: Path, content: str | None, words: str) -> None:
    configured = {"configured": entry("y")} if content and "configured" in content else {}
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        Keyring(AccessConfig.model_validate({"keys_file": file, "keys": configured}))
    assert words in str(refused.value)
    assert "millpond_" not in str(refused.value)  # a key that was put where its hash should be


def becomes(keys: Keyring, key: str, name: str | None) -> None:
    """Wait until a key is that of a name, None for nobody's."""
    while _whose(keys, key) != name:
        time.sleep(0.01)


def _whose(keys: Keyring, key: str) -> str | None:
    try:
        return keys.whose(key).name
    except InvalidKey:
        return None
