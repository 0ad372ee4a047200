"""The HTTP interface: routes, schemas and error responses."""

from service.api.app import create_app

__all__ = ["create_app"]
