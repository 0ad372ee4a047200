"""What a collection's vectors were made under, and whether what is served now would make the same."""

from __future__ import annotations

from service.collections import Definition
from service.embedding.chunking import Chunking
from service.embedding.embedder import Embedder
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.errors import FingerprintMismatch, ServiceError


def define(
    models: Models, model: str | None, spec: Spec | None, chunking: Chunking | None
) -> tuple[Embedder, Definition]:
    """The embedder of this name and pooling, and what a collection keeps of it and of how its documents are cut.

    Raises:
        UnknownModel, InvalidInput: as `Models.get` does.

    """
    embedder = models.get(model, spec)
    if embedder.fingerprint == models.get(model).fingerprint:
        spec = None  # the model's own pooling, however it was spelled
    return embedder, {
        "model": embedder.name,
        "asked_pooling": spec,
        "fingerprint": embedder.fingerprint,
        **embedder.fingerprint_parts,
        **({"chunking": chunking.to_json()} if chunking is not None else {}),
    }


def embedder_for(models: Models, collection: str, stored: Definition) -> Embedder:
    """The embedder that a collection was defined with.

    Raises:
        FingerprintMismatch: the deployment would now give other vectors than those stored.

    """
    try:
        embedder = models.get(stored["model"], stored["asked_pooling"])
    except ServiceError as error:
        raise FingerprintMismatch(
            f"collection {collection!r} was built with model {stored['model']!r}, which cannot answer for it now: "
            f"{error.detail} Serve that model as it was, or re-embed the collection under another: "
            f"`millpond reindex {collection} --model NAME`.",
            collection=collection,
            stored=stored,
        ) from None
    if embedder.fingerprint == stored["fingerprint"]:
        return embedder
    served = {"model": embedder.name, **embedder.fingerprint_parts, "fingerprint": embedder.fingerprint}
    differences = {
        key: {"stored": stored.get(key), "served": value} for key, value in served.items() if stored.get(key) != value
    }
    spelled = "; ".join(f"{key}: {side['stored']!r}, now {side['served']!r}" for key, side in differences.items())
    raise FingerprintMismatch(
        f"collection {collection!r} holds vectors that model {embedder.name!r} would no longer give "
        f"({spelled}), and the two cannot be compared. Serve the model as it was, or re-embed the collection "
        f"from its stored text: `millpond reindex {collection}`.",
        collection=collection,
        stored=stored,
        served=served,
        differences=differences,
    )
