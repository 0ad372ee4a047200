"""What the vectors of a collection are made under, and whether the models served now would make the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.embedding.chunking import Chunking
from service.errors import FingerprintMismatch, InvalidInput, ServiceError

if TYPE_CHECKING:
    from service.embedding.embedder import Embedder
    from service.embedding.models import Models
    from service.embedding.recipe import Spec


@dataclass(frozen=True, slots=True)
class Definition:
    """What vectors are made under: vectors of equal definitions can be compared.

    Args:
        model: name of the model.
        asked_pooling: the pooling that was asked for instead of the model's own; None for the model's own.
        fingerprint: of the model with its pooling.
        parts: what the fingerprint covers, by name. A stored definition keeps here whatever else it holds.
        chunking: how documents are cut into spans; None for one vector a document.

    """

    model: str
    asked_pooling: Spec | None
    fingerprint: str
    parts: Mapping[str, Any]
    chunking: Chunking | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Definition:
        """Return the definition that `to_json` described; raises `ValueError` for what it cannot have described."""
        if missing := [key for key in ("model", "asked_pooling", "fingerprint", "pooling") if key not in stored]:
            raise ValueError(f"it has no {' and no '.join(missing)}")
        parts = dict(stored)
        model, asked_pooling, fingerprint = (parts.pop(key) for key in ("model", "asked_pooling", "fingerprint"))
        chunking = parts.pop("chunking", None)
        try:
            chunked = None if chunking is None else Chunking.from_json(chunking)
        except (InvalidInput, KeyError) as error:
            raise ValueError(f"its chunking is {chunking!r} ({error})") from None
        return cls(model, asked_pooling, fingerprint, parts, chunked)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that is stored and shown in errors."""
        return {
            "model": self.model,
            "asked_pooling": self.asked_pooling,
            "fingerprint": self.fingerprint,
            **self.parts,
            **({} if self.chunking is None else {"chunking": self.chunking.to_json()}),
        }

    @property
    def pooling(self) -> str:
        """The pooling in its short form."""
        return str(self.parts["pooling"])


def define(
    models: Models, model: str | None, spec: Spec | None, chunking: Chunking | None
) -> tuple[Embedder, Definition]:
    """Return the embedder of a model, the default one for None, with a pooling, and the definition of its vectors.

    Raises:
        UnknownModel, InvalidInput: as `Models.get` does.

    """
    embedder = models.get(model, spec)
    if embedder.fingerprint == models.get(model).fingerprint:
        spec = None  # the model's own pooling, however it was spelled
    return embedder, Definition(embedder.name, spec, embedder.fingerprint, embedder.fingerprint_parts, chunking)


def embedder_for(models: Models, collection: str, stored: Definition) -> Embedder:
    """Return the embedder of a collection's definition.

    Raises:
        FingerprintMismatch: the models served now would not make the vectors that the collection holds.

    """
    try:
        embedder = models.get(stored.model, stored.asked_pooling)
    except ServiceError as error:
        raise FingerprintMismatch(
            f"collection {collection!r} was built with model {stored.model!r}, which cannot answer for it now: "
            f"{error.detail} Serve that model as it was, or re-embed the collection under another: "
            f"`millpond reindex {collection} --model NAME`.",
            collection=collection,
            stored=stored.to_json(),
        ) from None
    if embedder.fingerprint == stored.fingerprint:
        return embedder
    before = stored.to_json()
    served = {"model": embedder.name, **embedder.fingerprint_parts, "fingerprint": embedder.fingerprint}
    differences = {
        key: {"stored": before.get(key), "served": value} for key, value in served.items() if before.get(key) != value
    }
    spelled = "; ".join(f"{key}: {side['stored']!r}, now {side['served']!r}" for key, side in differences.items())
    raise FingerprintMismatch(
        f"collection {collection!r} holds vectors that model {embedder.name!r} would no longer give "
        f"({spelled}), and the two cannot be compared. Serve the model as it was, or re-embed the collection "
        f"from its stored text: `millpond reindex {collection}`.",
        collection=collection,
        stored=before,
        served=served,
        differences=differences,
    )
