"""Names of collections: renamed, copied under another one, and reached by aliases."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from service.api.requests import JSONRoute, Served
from service.api.schemas.collections import CollectionBody
from service.api.schemas.fields import CollectionName
from service.api.schemas.names import AliasBody, AliasList, AliasRequest, CopyRequest, RenameRequest
from service.api.schemas.problem import problem
from service.errors import NotFound

_MISSING: Final = problem(404, "Not found")
_CONFLICT: Final = problem(409, "The name is taken, or is an alias")
router = APIRouter(tags=["collections"], route_class=JSONRoute)


@router.post("/collections/{name}/rename", response_model_exclude_none=True, responses=_MISSING | _CONFLICT)
async def rename(name: CollectionName, body: RenameRequest, served: Served) -> CollectionBody:
    """Give a collection another name; its aliases stay."""
    renamed = await served.collections.rename(name, body.to)
    return CollectionBody(**await served.collections.describe(renamed))


@router.post(
    "/collections/{name}/copy", response_model_exclude_none=True, status_code=201, responses=_MISSING | _CONFLICT
)
async def copy(name: CollectionName, body: CopyRequest, served: Served) -> CollectionBody:
    """Copy a collection to a new one, all or nothing; answers once it is durable and can be searched.

    It has the definition, the documents and the vectors, and neither the aliases nor a reindex that was begun.
    Searches go on meanwhile; what changes a collection waits.
    """
    copied = await served.collections.copy(name, body.to)
    return CollectionBody(**await served.collections.describe(copied))


@router.get("/aliases")
async def list_aliases(served: Served) -> AliasList:
    """All aliases, and the collection that each stands for."""
    aliases = (await served.collections.aliases()).items()
    return AliasList(aliases=[AliasBody(alias=alias, collection=of.name) for alias, of in aliases])


@router.get("/aliases/{alias}", responses=_MISSING)
async def describe_alias(alias: CollectionName, served: Served) -> AliasBody:
    """The collection that an alias stands for."""
    collection = (await served.collections.aliases()).get(alias)
    if collection is None:
        raise NotFound(f"there is no alias {alias!r}.")
    return AliasBody(alias=alias, collection=collection.name)


@router.put("/aliases/{alias}", responses=_MISSING | _CONFLICT | {201: {"model": AliasBody}})
async def set_alias(alias: CollectionName, body: AliasRequest, served: Served, response: Response) -> AliasBody:
    """Make an alias stand for a collection (201), or for this one instead of another (200), in one step.

    An alias can be used wherever a collection's name can, except to delete or to rename the collection.
    """
    collection, created = await served.collections.alias(alias, body.collection)
    response.status_code = 201 if created else 200
    return AliasBody(alias=alias, collection=collection.name)


@router.delete("/aliases/{alias}", status_code=204, responses=_MISSING)
async def delete_alias(alias: CollectionName, served: Served) -> None:
    """Delete an alias; the collection stays."""
    await served.collections.delete_alias(alias)
