"""A folder of text and Markdown files: each is a document, and its path the id."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from service.cli.documents import document_of
from service.cli.sources.base import MOST_BYTES, Problem, Row, Source

_ENDINGS: Final = (".txt", ".md", ".markdown")


class Folder(Source):
    """The files of a folder and of those in it, in order of their paths; hidden ones and links to folders aside."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.files = sorted(found(path, _ENDINGS))

    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start."""
        for number, file in enumerate(self.files, 1):
            self.read = number / len(self.files)
            yield self._row(number, file)

    def _row(self, number: int, name: str) -> Row | Problem:
        place = f"file {name}"
        try:
            file = self.path / name
            about = file.stat()
            if not stat.S_ISREG(about.st_mode):
                raise ValueError("is a pipe or a device, and no file.")
            if about.st_size > MOST_BYTES:
                raise ValueError(f"has more than {MOST_BYTES >> 20} MiB. Split it.")
            text = file.read_bytes().decode("utf-8-sig")
            return Row(place, number, document_of({"id": name, "text": text}), text)
        except UnicodeDecodeError as error:
            return Problem(place, number, f"is not valid UTF-8 at byte {error.start + 1}. Save it as UTF-8.", "")
        except OSError as error:
            return Problem(place, number, f"cannot be read: {error.strerror}.", "")
        except ValueError as problem:
            return Problem(place, number, str(problem), "")


def found(root: Path, endings: Sequence[str]) -> Iterator[str]:
    """Yield the paths below a folder of files whose names end so; hidden ones and links to folders aside."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(tuple(endings)):
                yield (Path(folder) / name).relative_to(root).as_posix()
