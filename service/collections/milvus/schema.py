"""The columns of a collection in Milvus, one row for each vector, and what they may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

KEY: Final = "pk"
OWNER: Final = "owner"
DOCUMENT: Final = "document"
SEQUENCE: Final = "seq"
REVISION: Final = "revision"
ORDINAL: Final = "ordinal"
TEXT: Final = "text"
METADATA: Final = "metadata"
SPANS: Final = "spans"
BYTES: Final = "bytes"
TERMS: Final = "terms"
BOUNDS: Final = "bounds"
VECTOR: Final = "vector"
HEAD: Final = f"{ORDINAL} == 0"
"""Holds for the row of a document's first vector, which also has its text and metadata."""
EVERY: Final = f"{ORDINAL} >= 0"

MOST_TEXT: Final = 65_535
"""Bytes of a text in UTF-8."""
MOST_JSON: Final = 65_536
"""Bytes of metadata, of spans and of the bounds that filters compare."""
MOST_TERMS: Final = 4_096
"""Terms of metadata that filters find."""
MOST_DIM: Final = 32_768
MOST_SENT: Final = 32 << 20
"""Bytes of rows in one call, half of what a server takes."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a collection; `type` and `options` are as pymilvus names them."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    primary: bool = False

    @property
    def shown(self) -> str:
        """The type as `Client.describe` has it."""
        if self.type == "ARRAY":
            return f"ARRAY of {self.options['element_type']}"
        return f"{self.type}({self.options['dim']})" if self.type == "FLOAT_VECTOR" else self.type


def column_types(dim: int) -> Sequence[Column]:
    """Return the columns of a collection with vectors of `dim` numbers."""
    return (
        Column(KEY, "VARCHAR", {"max_length": 96}, primary=True),
        Column(OWNER, "VARCHAR", {"max_length": 32}),
        Column(DOCUMENT, "VARCHAR", {"max_length": 2_048}),
        Column(SEQUENCE, "INT64"),
        Column(REVISION, "INT64"),
        Column(ORDINAL, "INT64"),
        Column(TEXT, "VARCHAR", {"max_length": MOST_TEXT}),
        Column(METADATA, "JSON"),
        Column(SPANS, "JSON"),
        Column(BYTES, "INT64"),
        Column(TERMS, "ARRAY", {"element_type": "VARCHAR", "max_capacity": MOST_TERMS, "max_length": 32}),
        Column(BOUNDS, "JSON"),
        Column(VECTOR, "FLOAT_VECTOR", {"dim": dim}),
    )
