"""Millpond's server: text in, vectors and search results out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("millpond")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
