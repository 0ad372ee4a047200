"""What the HTTP side asks of what it serves, whether the models are in this process or in others."""

from __future__ import annotations

from typing import Protocol

from service.access import Keyring
from service.config import Config
from service.deployment import Reloaded


class Queues(Protocol):
    """Where requests wait to be computed."""

    @property
    def pause(self) -> int:
        """After how many seconds a client that is refused may come back."""

    def close(self) -> None:
        """Stop them; what waits there fails."""


class Serving(Protocol):
    """A deployment, as far as every request and the server have to do with it."""

    @property
    def config(self) -> Config:
        """As it is served now."""

    @property
    def keys(self) -> Keyring:
        """Those of its clients."""

    @property
    def encoders(self) -> Queues:
        """The queues of all encoders."""

    async def reread(self) -> Reloaded:
        """Read the config again and follow it; raises `ConfigError`."""
