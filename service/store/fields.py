"""How a filter names a field: the keys that lead to it, joined by dots."""

from __future__ import annotations

from service.errors import InvalidFilter, shortened
from service.store.conditions import Field
from service.store.document import has_surrogate

_ESCAPED = "\\.$"


def parsed(name: str, where: str) -> Field:
    """Return the keys of a field; a backslash takes a dot, a dollar or a backslash as part of a key.

    Raises `InvalidFilter`.
    """
    keys = [""]
    characters = iter(name)
    for character in characters:
        if character == ".":
            keys.append("")
        elif character != "\\":
            keys[-1] += character
        elif (escaped := next(characters, "")) and escaped in _ESCAPED:
            keys[-1] += escaped
        else:
            raise InvalidFilter(
                f"{where}: field {shortened(name)} has a backslash before {shortened(escaped)}; one stands before a "
                "dot, a dollar or a backslash that is part of a key."
            )
    if not all(keys):
        raise InvalidFilter(f"{where}: field {shortened(name)} has an empty part; write keys joined by single dots.")
    if "\0" in name or has_surrogate(name):
        raise InvalidFilter(
            f"{where}: field {shortened(name)} cannot be filtered by; no key in metadata holds a NUL character or "
            "half of a surrogate pair."
        )
    return tuple(keys)


def spelled(field: Field) -> str:
    """Return the name of a field, from which `parsed` makes the same keys."""
    keys = [key.replace("\\", "\\\\").replace(".", "\\.") for key in field]
    if keys[0].startswith("$"):
        keys[0] = f"\\{keys[0]}"
    return ".".join(keys)
