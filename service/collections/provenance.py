"""What the vectors of a collection are made under, and whether the models served now would make the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from service.embedding.chunkers import BySentence
from service.embedding.chunking import Chunking
from service.embedding.fingerprint import FIRST
from service.errors import FingerprintMismatch, InvalidInput, Place, ServiceError, StoreUnavailable
from service.similarity import COSINE, SIMILARITIES, Similarity

if TYPE_CHECKING:
    from pooling.layers import LayerSpec
    from service.embedding.embedder import Embedder
    from service.embedding.models import Models
    from service.embedding.recipe import Spec
    from service.store import Document

_OPTIONAL: Final = ("layers", "query", "default_route")
"""Parts that the fingerprints of some models have."""
FOREIGN: Final = "foreign"
"""The fingerprint of vectors of which no model is known."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What vectors are made under, those of equal definitions can be compared, and how they are compared.

    Args:
        model: name of the model; None where there is none, as vectors are foreign.
        asked_pooling: the pooling that was asked for instead of the model's own; None for the model's own.
        pooling: the pooling in its short form; None without a model.
        fingerprint: of the model with this pooling; `foreign` without a model.
        parts: what else the fingerprint covers, by name, and whatever else was stored.
        chunking: how documents are cut into spans; None for one vector a document.
        similarity: how a search compares vectors.
    """

    model: str | None
    asked_pooling: Spec | None
    pooling: str | None
    fingerprint: str
    parts: Mapping[str, Any]
    chunking: Chunking | None = None
    similarity: Similarity = COSINE

    @property
    def layers(self) -> LayerSpec | None:
        """Whose states are pooled, as `Layers.spec` has it; None for the last layer's alone."""
        pooled: LayerSpec | None = self.parts.get("layers")
        return pooled

    @property
    def asked_layers(self) -> LayerSpec | None:
        """The layers that were asked for instead of the model's own; None for the model's own."""
        asked: LayerSpec | None = self.parts.get("asked_layers")
        return asked

    @property
    def scheme(self) -> int:
        """By which rules the fingerprint was made."""
        return int(self.parts.get("scheme", FIRST))

    @property
    def foreign(self) -> bool:
        """Whether documents come with their vectors; a model, where one is named, embeds queries alone."""
        return bool(self.parts.get("foreign"))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Definition:
        """Read what `to_json` wrote; raises `StoreUnavailable` for what this version does not know."""
        parts = dict(stored)
        try:
            own = {key: parts.pop(key) for key in ("model", "asked_pooling", "pooling", "fingerprint")}
            chunking = parts.pop("chunking", None)
            chunking = None if chunking is None else Chunking.from_json(chunking)
            similarity = SIMILARITIES[parts.pop("similarity", COSINE.name)]
            return cls(**own, parts=parts, chunking=chunking, similarity=similarity)
        except (KeyError, InvalidInput) as error:
            raise StoreUnavailable(
                f"a collection is defined in a way that this version of Millpond does not know ({error!r}): "
                f"{json.dumps(stored)}. Use the version that created it, or choose another folder."
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that is stored and shown in errors; a similarity is named unless it is cosine."""
        own = {key: getattr(self, key) for key in ("model", "asked_pooling", "pooling", "fingerprint")}
        chunking = {} if self.chunking is None else {"chunking": self.chunking.to_json()}
        similarity = {} if self.similarity is COSINE else {"similarity": self.similarity.name}
        return {**own, **self.parts, **chunking, **similarity}


def define(
    models: Models,
    model: str | None,
    spec: Spec | None,
    chunking: Chunking | None,
    similarity: Similarity | None = None,
    layers: LayerSpec | None = None,
) -> tuple[Embedder, Definition]:
    """Return the embedder of a model, the default one for None, with a pooling and layers, and their definition.

    They are compared by what the model declares, where no similarity is given.

    Raises:
        UnknownModel, InvalidInput: as `Models.get` does; or the model declares a similarity that is not known.
    """
    embedder = models.get(model, spec, layers)
    if chunking is not None and chunking.mode == "late":
        embedder.require_late()
    # What is the model's own is that, however it was spelled.
    if embedder.fingerprint == models.get(model).fingerprint:
        spec = layers = None
    elif spec is not None and layers is not None:
        if embedder.fingerprint == models.get(model, spec).fingerprint:
            layers = None
        elif embedder.fingerprint == models.get(model, None, layers).fingerprint:
            spec = None
    parts = dict(embedder.fingerprint_parts)
    if layers is not None:
        parts["asked_layers"] = "declared" if embedder.recipe.layers_declared else embedder.recipe.layers.spec
    if similarity is None:
        similarity = _declared_similarity(embedder)
    pooling = parts.pop("pooling")
    return embedder, Definition(embedder.name, spec, pooling, embedder.fingerprint, parts, chunking, similarity)


def define_foreign(
    models: Models,
    dimension: int,
    model: str | None,
    spec: Spec | None,
    similarity: Similarity | None = None,
    layers: LayerSpec | None = None,
) -> Definition:
    """Return the definition of vectors of so many numbers that documents come with.

    Args:
        models: the served models.
        dimension: the numbers of a vector.
        model: which of them made the vectors elsewhere, and embeds queries here; None: texts are not searched for.
        spec: its pooling, None for its own.
        layers: whose states it pools, None for its own.
        similarity: by default what the model declares, or cosine.

    Raises:
        InvalidInput: the model's vectors have another dimension, or there is a pooling without a model; and as
            `define` does.
    """
    if model is None:
        for field, given in (("pooling", spec), ("layers", layers)):
            if given is not None:
                raise InvalidInput(
                    f"{field!r} is a model's, and a collection with a 'dimension' of its own has none. Leave it out, "
                    "or name the 'model' that queries are to be embedded with.",
                    where=Place(field),
                )
        return Definition(None, None, None, FOREIGN, {"foreign": True}, similarity=similarity or COSINE)
    embedder, definition = define(models, model, spec, None, similarity, layers)
    if embedder.dim != dimension:
        raise InvalidInput(
            f"'dimension' is {dimension}, and vectors of model {model!r} have {embedder.dim} numbers, so that it "
            "cannot embed queries. Name another model, or none.",
            where=Place("dimension"),
        )
    return replace(definition, parts={**definition.parts, "foreign": True})


def _declared_similarity(embedder: Embedder) -> Similarity:
    declared = embedder.recipe.checkpoint.similarity
    if declared not in SIMILARITIES:
        raise InvalidInput(
            f"model {embedder.name!r} declares the similarity {declared!r}, by which collections are not searched "
            f"here. Where another will do, ask for it: {', '.join(map(repr, SIMILARITIES))}.",
            where=Place("similarity"),
        )
    return SIMILARITIES[declared]


def changed_rules(
    stored: Definition, embedder: Embedder, documents: Callable[[], Iterable[Document]]
) -> list[str] | None:
    """Say which rules that have changed since an older scheme touch a collection's vectors: none leave them right.

    None means that more has changed than rules.

    Args:
        stored: the collection's definition, of an older scheme.
        embedder: what is served under its model's name and pooling.
        documents: gives those of the collection, with their spans; they are read where it depends on them.
    """
    rules = embedder.changes_since(stored.fingerprint, lambda: (document.text for document in documents()))
    if rules or rules is None or stored.chunking is None or stored.chunking.by != BySentence.name:
        return rules
    spans = (document.text[start:end] for document in documents() for start, end in document.spans or ())
    if all(map(embedder.reads_at_once, spans)):
        return []
    return ["sentences with more tokens than the model reads at once are cut, as one here would be"]


def carried_over(stored: Definition, embedder: Embedder) -> Definition:
    """Return a definition of an older scheme as the present one has it."""
    parts = {**stored.parts, **embedder.fingerprint_parts}
    del parts["pooling"]
    return replace(stored, fingerprint=embedder.fingerprint, parts=parts)


def unserved(collection: str, stored: Definition, error: ServiceError) -> FingerprintMismatch:
    """Return the error for a collection whose model or pooling is not served any more, which `error` says."""
    return FingerprintMismatch(
        f"collection {collection!r} was built with model {stored.model!r}, which cannot answer for it now: "
        f"{error.detail} Serve that model as it was, or re-embed the collection under another: "
        f"`millpond reindex {collection} --model NAME`.",
        collection=collection,
        stored=stored.to_json(),
    )


def mismatch(
    collection: str, stored: Definition, embedder: Embedder, rules: Sequence[str] = ()
) -> FingerprintMismatch:
    """Return the error for a collection whose vectors its embedder would no longer make.

    Where the release has, `rules` says what has changed, as `changed_rules` does.
    """
    before = stored.to_json()
    served = {"model": embedder.name, **embedder.fingerprint_parts, "fingerprint": embedder.fingerprint}
    if rules:
        return FingerprintMismatch(
            f"collection {collection!r} was filled by an earlier release, and since then {', and '.join(rules)}, so "
            "its vectors cannot be compared with new ones. Re-embed it from its stored text: "
            f"`millpond reindex {collection}`.",
            collection=collection,
            stored=before,
            served=served,
        )
    keys = dict.fromkeys([*served, *(part for part in _OPTIONAL if part in before)])
    differences = {
        key: {"stored": before.get(key), "served": served.get(key)}
        for key in keys
        if before.get(key) != served.get(key)
    }
    spelled = "; ".join(f"{key}: {side['stored']!r}, now {side['served']!r}" for key, side in differences.items())
    return FingerprintMismatch(
        f"collection {collection!r} holds vectors that model {embedder.name!r} would no longer give "
        f"({spelled}), and the two cannot be compared. Serve the model as it was, or re-embed the collection "
        f"from its stored text: `millpond reindex {collection}`.",
        collection=collection,
        stored=before,
        served=served,
        differences=differences,
    )
