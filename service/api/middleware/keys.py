"""Requests need a key where the service has some."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Key, Keyring
from service.api import errors
from service.api.needs import Needs
from service.encoder.metering import metered
from service.errors import NoKey, ServiceError, WrongScope


class KeyCheck:
    """Refuses requests before their body is read: 401 without a key, 403 of the wrong scope, 429 over its limits.

    What a request lets the encoders read, also after its response, is counted as its key's.
    """

    def __init__(self, app: ASGIApp, keys: Keyring, needs: Needs) -> None:
        self._app = app
        self._keys = keys
        self._needs = needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection if its key allows it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            key = self._admit(scope)
        except ServiceError as error:
            response = await errors.respond(Request(scope), error)
            await response(scope, receive, send)
            return
        if key is None:
            await self._app(scope, receive, send)
            return
        with metered(key.spend):
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> Key | None:
        """Return the key of a request, None if it needs none; raises what is wrong with it."""
        need = self._needs.of(scope)
        if need == "nothing":
            return None
        key = self._keys.whose(_shown(scope))
        if need != "key" and not key.may(need):
            raise WrongScope(
                f"key {key.name!r} is for {', '.join(key.config.scopes) or 'no scope'}, and {scope['method']} "
                f"{scope['path']} needs {need}. Ask with another key.",
                scope=need,
            )
        key.begin_request()
        return key


def _shown(scope: Scope) -> str:
    """Return the key that a request shows as its bearer token."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer" and key.strip():
                return str(key.strip())
    raise NoKey("this service wants a key with each request, in the header 'authorization: Bearer KEY'.")
