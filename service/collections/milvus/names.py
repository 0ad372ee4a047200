"""What Millpond's names are in Milvus, whose names have letters, digits and underscores alone."""

from __future__ import annotations

from typing import Final

ALIAS: Final = "millpond_"
"""Begins the alias that stands for a collection, or an alias, of Millpond."""
PHYSICAL: Final = "millpond__"
"""Begins the name of a collection that holds one; no alias begins so."""
CLOSED: Final = "_closed"
"""Ends the name of one that is not written to for now, since another may take its place."""
_ESCAPES: Final = {"_": "__", ".": "_d", "-": "_h"}
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LONGEST: Final = 200
_LONG: Final = "0_x"
"""Begins a name that would be too long; `_x` is no escape."""


def alias_of(name: str) -> str:
    """Return the alias in Milvus that stands for a name or an alias of Millpond."""
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    return ALIAS + (escaped if len(escaped) <= _LONGEST else _LONG + _packed(name))


def name_of(alias: str) -> str | None:
    """Return the name or the alias of Millpond that an alias in Milvus stands for; None where it is none of ours."""
    if not alias.startswith(ALIAS) or alias.startswith(PHYSICAL):
        return None
    escaped = alias.removeprefix(ALIAS)
    if escaped.startswith(_LONG):
        return _unpacked(escaped.removeprefix(_LONG))
    meant = {escape[1]: character for character, escape in _ESCAPES.items()}
    name, characters = "", iter(escaped)
    for character in characters:
        name += character if character != "_" else meant.get(next(characters, ""), "\0")
    return None if "\0" in name else name


def _packed(name: str) -> str:
    number, digits = int.from_bytes(name.encode()), ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits += _DIGITS[digit]
    return digits


def _unpacked(digits: str) -> str | None:
    number = 0
    for digit in reversed(digits):
        if digit not in _DIGITS:
            return None
        number = number * len(_DIGITS) + _DIGITS.index(digit)
    try:
        return number.to_bytes((number.bit_length() + 7) // 8).decode()
    except UnicodeDecodeError:
        return None
