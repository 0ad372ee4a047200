"""Names of collections: to rename them, for copies, and aliases."""

from __future__ import annotations

from pydantic import BaseModel

from service.api.requests import Body
from service.api.schemas.fields import CollectionName, examples


class RenameRequest(Body):
    """The name that a collection is to have."""

    model_config = examples({"to": "notes"})

    to: CollectionName


class CopyRequest(Body):
    """The name of the copy."""

    model_config = examples({"to": "notes-2"})

    to: CollectionName


class AliasRequest(Body):
    """The collection that an alias is to stand for."""

    model_config = examples({"collection": "default"})

    collection: CollectionName


class AliasBody(BaseModel):
    """An alias, and the name of the collection that it stands for."""

    alias: str
    collection: str


class AliasList(BaseModel):
    """All aliases."""

    aliases: list[AliasBody]
