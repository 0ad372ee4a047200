"""Definitions of collections whose vectors no model made."""

from __future__ import annotations

from typing import Any

from service.collections import Definition


def definition(model: str = "m", **parts: Any) -> Definition:
    """Return a definition that differs from others in its model, or in what its fingerprint covers."""
    return Definition(model, None, "mean", "0123456789abcdef", parts)
