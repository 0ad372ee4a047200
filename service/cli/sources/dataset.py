"""A folder of vectors that `millpond embed-dataset` has written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from service.cli.dataset_folder import Manifest, whole_dataset
from service.cli.sources.base import Problem, Row, Source
from service.cli.sources.parquet import Parquet


class Dataset(Source):
    """The rows of all blocks, in order; raises `Failure` where a block is missing."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        super().__init__(path)
        self._files = whole_dataset(path, manifest)

    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start."""
        number = 0
        for done, file in enumerate(self._files):
            block = Parquet(file)
            for row in block:
                number += 1
                self.read = (done + block.read) / len(self._files)
                yield replace(row, place=f"{file.name}, {row.place}", number=number)
            self.read = (done + 1) / len(self._files)
