"""From a block of rows to a file of vectors, wherever that is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from pooling.layers import LayerSpec
from service.cli.console import Failure
from service.cli.dataset_folder import VECTOR, Manifest, block_name, rejects_name, rows_of, written
from service.cli.datasets.base import Advance, Rows
from service.cli.datasets.inputs import Block, Blocks, Input
from service.cli.rejects import entry
from service.cli.sources import Problem
from service.cli.streams import needed
from service.cli.wording import in_options, too_long
from service.config import Config
from service.errors import EmptyInput, InvalidInput, ServiceError, TooLong

if TYPE_CHECKING:
    from service.arrays import Vectors
    from service.embedding.embedder import Embedder

_MOST_TOLD: Final = 10
"""Rows left out that are told of a block."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model embeds, so that each machine can load it for itself."""

    config: Config
    pooling: str | None
    layers: LayerSpec | None

    def load(self) -> Embedder:
        """Load it; raises `ServiceError`."""
        from service.embedding.models import Models

        models = Models(self.config)
        try:
            return models.get(None, self.pooling, self.layers)
        except BaseException:
            models.close()
            raise


@dataclass(frozen=True, slots=True)
class Job:
    """All that is needed to embed any block of a dataset.

    Args:
        folder: where its file is written.
        manifest: what the folder holds.
        source: what is embedded.
        truncate: whether a text that is too long is cut; else it is left out, or ends the job.
        skip: whether rows that cannot be embedded are left out; else the first ends the job.
    """

    folder: Path
    manifest: Manifest
    source: Input
    prompt_name: str | None
    input_type: Any
    truncate: bool
    skip: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """What has become of a block: rows written, and how many were left out, of which the first are told."""

    block: int
    rows: int
    left_out: int = 0
    told: list[str] = field(default_factory=list)
    unknown: int = 0
    """Tokens that are unknown to the model."""


class Worker:
    """Embeds blocks of a job with a model that stays loaded.

    Raises:
        Failure: the model is not the one that the manifest names.
    """

    def __init__(self, job: Job, embedder: Embedder) -> None:
        from service.embedding.postprocessing import ToVectors

        if embedder.fingerprint != job.manifest.fingerprint:
            raise Failure(
                f"the model has fingerprint {embedder.fingerprint} here, and {job.manifest.fingerprint} where the "
                "job was begun. Install the same Millpond and the same model on each machine."
            )
        self._job = job
        self._blocks = Blocks(job.source)
        self._embedder = embedder.of(job.input_type, job.prompt_name)
        self._prompt = self._embedder.prompt(job.prompt_name, job.input_type)
        recipe = self._embedder.recipe
        self._to_vectors = ToVectors(recipe, recipe.normalize)

    def embed(self, block: Block, advance: Advance = lambda _: None) -> Receipt:
        """Write the file of a block, unless it is written already.

        Args:
            block: which.
            advance: called with the number of further rows that are done.

        Raises:
            Failure: a row cannot be embedded and none is to be left out; the input is damaged or has changed.
            ServiceError: the model is broken.
            OSError: nothing can be written.
        """
        job = self._job
        path = job.folder / block_name(block.number)
        if path.exists():
            done = rows_of(job.folder, job.manifest, block.number)
            return Receipt(block.number, done, block.extent.rows - done)
        before = self._embedder.unknown.count
        rows = self._blocks.read(block)
        left_out = _LeftOut(job.source.files[block.file].name, rows, skip=job.skip)
        kept, vectors = self._vectors(rows, left_out, advance)
        if left_out.problems:
            with written(job.folder / rejects_name(block.number)) as rejects:
                rejects.writelines(left_out.entries())
        self._write(path, block, rows.table(kept), vectors)
        unknown = self._embedder.unknown.count - before
        return Receipt(block.number, len(kept), len(left_out.problems), left_out.told(), unknown)

    def close(self) -> None:
        """Close the input."""
        self._blocks.close()

    def _vectors(self, rows: Rows, left_out: _LeftOut, advance: Advance) -> tuple[list[int], Vectors]:
        """Return which rows are embedded, and their vectors (rows, dim)."""
        waiting: list[tuple[int, str]] = []
        for index in range(len(rows)):
            try:
                waiting.append((index, rows.text(index)))
            except ValueError as problem:
                left_out.add(index, str(problem))
        advance(len(left_out.problems))
        kept: list[int] = []
        vectors = np.empty((len(waiting), self._to_vectors.dim), np.float32)
        while (start := len(kept)) < len(waiting):
            try:
                for vector in self._run([text for _, text in waiting[start:]], advance):
                    vectors[len(kept)] = vector
                    kept.append(waiting[len(kept)][0])
            except (InvalidInput, TooLong) as error:
                wrong = self._at_fault(error, [text for _, text in waiting[start:]])
                if not wrong:
                    raise
                for place, reason in wrong.items():
                    left_out.add(waiting[start + place][0], reason)
                waiting = [each for place, each in enumerate(waiting) if place - start not in wrong]
                advance(len(wrong))
        return kept, vectors[: len(kept)]

    def _run(self, texts: Sequence[str], advance: Advance) -> Iterator[Vectors]:
        truncate: Literal["right"] | None = "right" if self._job.truncate else None
        return self._embedder.run(texts, self._to_vectors, prompt=self._prompt, truncate=truncate, advance=advance)

    def _at_fault(self, error: ServiceError, texts: Sequence[str]) -> dict[int, str]:
        """Return what is wrong with texts that an error is about, by their places; of those too long, all of them."""
        if isinstance(error, TooLong):
            most = self._embedder.recipe.max_tokens
            found = self._embedder.encoder.tokenizer.encode(texts, prompt=self._prompt)
            lengths = {place: len(text.ids) for place, text in enumerate(found)}
            return {place: too_long("the text", size, most) for place, size in lengths.items() if size > most}
        if isinstance(error, EmptyInput):
            return dict.fromkeys(error.extra["without_tokens"], "has no token that the model knows.")
        if error.where is None or error.where.index is None:
            return {}
        return {error.where.index: in_options(str(error))}

    def _write(self, path: Path, block: Block, table: Any, vectors: Vectors) -> None:
        arrow, parquet = needed("pyarrow", "pyarrow", path), needed("pyarrow.parquet", "pyarrow", path)
        column = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), vectors.shape[1])
        names = table.column_names
        table = table.append_column(VECTOR, column) if names else arrow.table({VECTOR: column})
        table = table.replace_schema_metadata(self._job.manifest.about(block.number).to_metadata())
        with written(path) as file:
            parquet.write_table(table, file, use_dictionary=names)


class _LeftOut:
    """The rows of a block that are left out; raises `Failure` for the first where none is to be."""

    def __init__(self, file: str, rows: Rows, *, skip: bool) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._rows = rows
        self._skip = skip

    def add(self, index: int, reason: str) -> None:
        """Leave a row out."""
        problem = self._rows.problem(index, reason)
        if not self._skip:
            raise Failure(f"{self._told(problem)} Give --on-error skip to leave such rows out.")
        self.problems.append(problem)
        self.problems.sort(key=lambda each: each.number)

    def entries(self) -> Iterator[bytes]:
        """Yield a line for the file of rejects for each."""
        return (entry(problem, problem.reason, file=self._file) for problem in self.problems)

    def told(self) -> list[str]:
        """Return what is told of the first of them."""
        return [self._told(problem) for problem in self.problems[:_MOST_TOLD]]

    def _told(self, problem: Problem) -> str:
        return f"{self._file}: {problem.place}: {problem.reason}"
