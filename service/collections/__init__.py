"""Documents in, hits out: collections over the served models, their vectors under a recorded provenance."""

from service.collections.collection import Collection, Definition, Rebuild
from service.collections.manager import Collections

__all__ = ["Collection", "Collections", "Definition", "Rebuild"]
