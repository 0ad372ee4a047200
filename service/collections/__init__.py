"""Documents in, hits out: collections over the served models, their vectors under a recorded definition."""

from service.collections.collection import Collection, Hit, Rebuild
from service.collections.engine import Collections
from service.collections.paging import Page
from service.collections.provenance import Definition
from service.collections.selection import Changed, Selection

__all__ = ["Changed", "Collection", "Collections", "Definition", "Hit", "Page", "Rebuild", "Selection"]
