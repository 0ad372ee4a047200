"""Where `millpond index` reads documents: each format is a module, found by what a path is or how its name ends."""

from service.cli.sources.base import Problem, Row, Source
from service.cli.sources.registry import open_source

__all__ = ["Problem", "Row", "Source", "open_source"]
