"""Measurements against the bare encoder and the library, through a real service. Each prints what it measured."""
