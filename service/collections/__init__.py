"""Documents in, hits out: collections over the served models, their vectors under a recorded definition."""

from service.collections.collection import Collection, Hit, Rebuild
from service.collections.engine import Collections
from service.collections.provenance import Definition

__all__ = ["Collection", "Collections", "Definition", "Hit", "Rebuild"]
