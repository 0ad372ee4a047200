"""HTTP: routes, schemas, and errors as answers."""

from service.api.app import create_app

__all__ = ["create_app"]
