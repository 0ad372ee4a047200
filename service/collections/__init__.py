"""Documents in, hits out: collections over the served models, their vectors under a recorded definition."""

from service.collections.protocols import Collection, Engine, Hit, Page, Rebuild
from service.collections.provenance import Definition
from service.collections.selection import Changed, Selection

__all__ = ["Changed", "Collection", "Definition", "Engine", "Hit", "Page", "Rebuild", "Selection"]
