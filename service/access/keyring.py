"""The keys of a deployment, and whose key a client has shown."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Final

from service.access.budget import Budget
from service.access.secret import digest
from service.config import AccessConfig, KeyConfig, Scope, read_keys
from service.errors import ConfigError, InvalidKey, QuotaExceeded, RateExceeded

logger = logging.getLogger(__name__)

_LOOK_AGAIN: Final = 1.0
"""Seconds after which the file is looked at again."""
_MINUTE: Final = 60.0
_DAY: Final = 86_400.0


class Key:
    """An API key: what it is for, until when, and what is left of its limits in this process.

    Args:
        name: what it is called.
        config: what is known of it.
    """

    def __init__(self, name: str, config: KeyConfig) -> None:
        self.name = name
        self.config = config
        self._requests = Budget(config.requests_per_minute, _MINUTE) if config.requests_per_minute else None
        quotas = (("minute", config.tokens_per_minute, _MINUTE), ("day", config.tokens_per_day, _DAY))
        self._tokens = {unit: Budget(amount, seconds) for unit, amount, seconds in quotas if amount}

    def may(self, scope: Scope) -> bool:
        """Whether it is for a scope."""
        return scope in self.config.scopes or "admin" in self.config.scopes

    def begin_request(self) -> None:
        """Count a request.

        Raises:
            RateExceeded, QuotaExceeded: it has sent too many requests or tokens; this one is not counted.
        """
        if self._requests is not None and (wait := self._requests.wait()):
            raise RateExceeded(
                f"key {self.name!r} has sent its {self._requests.amount} requests a minute. Send this one later.",
                retry_after=math.ceil(wait),
            )
        waits = {unit: wait for unit, budget in self._tokens.items() if (wait := budget.wait())}
        if waits:
            unit = max(waits, key=lambda unit: waits[unit])
            raise QuotaExceeded(
                f"key {self.name!r} has sent its {self._tokens[unit].amount} tokens a {unit}. Send this one later.",
                retry_after=math.ceil(waits[unit]),
            )
        if self._requests is not None:
            self._requests.spend(1)

    def spend(self, tokens: int) -> None:
        """Count tokens that a request has sent, which may be more than were left."""
        for budget in self._tokens.values():
            budget.spend(tokens)


Stamp = tuple[int, int, int, int]
"""What changes with a file, its permissions or what links lead to."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The keys of a config and of its file by name, and the stamp of the file from before it was read, if any."""

    keys: Mapping[str, KeyConfig]
    stamp: Stamp | None


class Keyring:
    """The keys of a config and those of its file, which is read again when it has changed.

    A file that cannot be read any more, or says something impossible, is logged, and its keys stay as they were.

    Raises:
        ConfigError: the file cannot be read, or names or keys come twice, or there is no key although some are meant.
    """

    def __init__(self, config: AccessConfig) -> None:
        self._config = config
        self._file: Path | None = config.keys_file
        self._looked = time.monotonic()
        self._stamp: Stamp | None = None
        self._keys: tuple[Key, ...] = ()
        self._take(self.read())
        if config.needs_key and not self._keys:
            raise ConfigError(
                f"{self._file}: holds no key, so nobody could call the service. `millpond keys new NAME --file "
                f"{self._file}` makes one."
            )

    def whose(self, shown: str) -> Key:
        """Return the key that a client has shown.

        It is compared with each key in constant time, so that the time taken tells nothing about any.

        Raises:
            InvalidKey: it is none, or has expired.
        """
        self._read_if_changed()
        hashed = digest(shown)
        found = None
        for key in self._keys:
            if compare_digest(key.config.hash, hashed):
                found = key
        if found is None:
            raise InvalidKey("this is no key of the service, or none any more; ask whoever runs it for one.")
        if (expires := found.config.expires) is not None and expires <= datetime.now(UTC):
            raise InvalidKey(f"key {found.name!r} has expired; ask whoever runs the service for another.")
        return found

    def reload(self) -> list[str]:
        """Read the file again, whether or not it has changed, and follow it; see `read` and `follow`."""
        return self.follow(self.read())

    def read(self) -> Listed:
        """Read the file, which may be done on any thread, and changes nothing.

        Raises:
            ConfigError: as when it is made.
        """
        stamp = self._look()
        listed = dict(self._config.keys)
        if self._file is not None:
            of_file = read_keys(self._file)
            if twice := listed.keys() & of_file.keys():
                raise ConfigError(f"{self._file}: {min(twice)}: is a key of access.keys too. Name one of them anew.")
            listed |= of_file
        _check_different(listed)
        return Listed(listed, stamp)

    def follow(self, listed: Listed) -> list[str]:
        """Know the keys that were read; what was spent of limits that stay remains spent. Returns their names."""
        self._take(listed)
        names = [key.name for key in self._keys]
        log = logger.info if names else logger.warning
        log("%d keys are known: %s", len(names), ", ".join(names) or "nobody can call the service")
        return names

    def _read_if_changed(self) -> None:
        now = time.monotonic()
        if self._file is not None and now - self._looked >= _LOOK_AGAIN:
            self._looked = now
            if (stamp := self._look()) != self._stamp:
                self._stamp = stamp  # what is wrong with the file is told once
                try:
                    self.reload()
                except ConfigError as error:
                    logger.error("the keys stay as they were: %s", error)

    def _look(self) -> Stamp | None:
        try:
            stat = self._file.stat() if self._file is not None else None
        except OSError:
            stat = None
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) if stat is not None else None

    def _take(self, listed: Listed) -> None:
        known = {key.name: key for key in self._keys}
        self._keys = tuple(
            known[name] if name in known and known[name].config == config else Key(name, config)
            for name, config in listed.keys.items()
        )
        self._stamp = listed.stamp


def _check_different(keys: Mapping[str, KeyConfig]) -> None:
    names: dict[str, str] = {}
    for name, config in keys.items():
        if (other := names.setdefault(config.hash, name)) != name:
            raise ConfigError(f"keys {other!r} and {name!r} have the same hash. Each needs a key of its own.")
