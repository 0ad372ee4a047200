"""`millpond embed-dataset`."""

from __future__ import annotations

import errno
import fcntl
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from typer.core import TyperCommand

from service.cli import options
from service.cli.client import warn_about_unknown
from service.cli.console import Failure, Interrupted, out, progress_bar, rated_bar, warn
from service.cli.single import single_config
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.cli.dataset_folder import Manifest
    from service.cli.datasets.base import Advance
    from service.cli.datasets.inputs import Block, Input
    from service.cli.datasets.worker import Job, Receipt
    from service.config import Config
    from service.embedding.embedder import Embedder

_MOST_TOLD: Final = 10
_MOST_NAMED: Final = 3
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM: Final = "Free some space and run the same command again to go on."
_GO_ON: Final = "Run the same command again to go on."
_RUNNING: Final = "auto"
"""The address of the cluster that runs on this machine, or that RAY_ADDRESS names."""
_ADDRESS: Final = re.compile(r"auto|local|\S+://\S+|[^\s/]+:\d+")


class DatasetCommand(TyperCommand):
    """A command whose `--ray` may stand without an address: `--ray IN OUT` names none."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the command line, with the running cluster as the address where none follows."""
        given = list(args)
        for place in reversed([place for place, argument in enumerate(args) if argument == "--ray"]):
            if not _ADDRESS.fullmatch("".join(given[place + 1 : place + 2])):
                given.insert(place + 1, _RUNNING)
        found: list[str] = super().parse_args(ctx, given)
        return found


@dataclass
class _Done:
    """What is written of how much, by this run and those before it."""

    folder: Path
    all_blocks: int = 0
    all_rows: int = 0
    blocks: int = 0
    rows: int = 0
    left_out: int = 0
    before: int = 0
    """Rows that earlier runs have done, those left out among them."""
    told: list[str] = field(default_factory=list)
    unknown: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, receipt: Receipt) -> None:
        """Note a block that is written."""
        self.blocks += 1
        self.rows += receipt.rows
        self.left_out += receipt.left_out
        self.told += receipt.told[: _MOST_TOLD - len(self.told)]
        self.unknown += receipt.unknown

    @property
    def seconds(self) -> float:
        """Since this run began to embed."""
        return max(time.monotonic() - self.began, 1e-3)

    def __str__(self) -> str:
        from service.cli.dataset_folder import written_blocks

        if not self.all_blocks:
            return f"nothing more is written to {self.folder}"
        there = len(written_blocks(self.folder))  # on a cluster, some of which no receipt has come yet
        return f"{there} of {self.all_blocks} blocks are written to {self.folder}"


def embed_dataset(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="JSON lines (also .gz and .zst) or Parquet: a file, or a folder of files of one of the two.",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write: a new or empty one, or one to go on with.")
    ],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A deployment's YAML file, which names the model.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A folder, a Hugging Face id or bundled/NAME; with --config, the name of one of its models."
        ),
    ] = None,
    pooling: options.Pooling = None,
    layers: options.Layers = None,
    max_tokens: options.MaxTokens = None,
    text_column: Annotated[str, typer.Option(help="The column, or member of an object, that is embedded.")] = "text",
    columns: Annotated[
        str | None, typer.Option(help="The columns to keep beside the vector, such as id,title; all unless given.")
    ] = None,
    prompt_name: options.PromptName = None,
    input_type: Annotated[
        Literal["document", "query"],
        typer.Option(help="What the texts are for, which chooses the prompt, and the route of a Router."),
    ] = "document",
    truncate: options.Truncate = False,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(
            help="What is done where a row cannot be embedded: end there, or leave it out and note it in a file "
            "beside the block's."
        ),
    ] = "stop",
    block_rows: Annotated[
        int, typer.Option(min=1, help="Most rows of a block, which is one file of the output.")
    ] = 8192,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Embed on a Ray cluster: the one that runs here or that RAY_ADDRESS names, or HOST:PORT.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --ray: the most models that are loaded; as many as fit unless given."),
    ] = None,
    worker_cpus: Annotated[
        float | None,
        typer.Option(min=0.5, help="With --ray: CPUs of each; those of the smallest machine unless given."),
    ] = None,
) -> None:
    """Embed a column of a data set, and write its rows with their vectors as numbered Parquet files.

    It may be stopped at any time and run again: blocks that are written are not embedded a second time. Rows are in
    the order of the input. `millpond index OUT` stores them in a collection. The exit status is 1 where rows are left
    out.
    """
    if ray is None and (workers or worker_cpus):
        raise Failure("--workers and --worker-cpus go with --ray.", 2)
    from service.cli.dataset_folder import block_name
    from service.cli.datasets.inputs import input_files
    from service.cli.datasets.worker import Job, ModelSpec
    from service.cli.streams import needed

    needed("pyarrow.parquet", "pyarrow", folder / block_name(0))
    if ray is not None:
        from service.cli.datasets.on_ray import require_ray

        require_ray()
    _require_apart(source, folder)
    input_files(source)
    done = _Done(folder)
    try:
        with ExitStack() as stack:
            _require_ours(folder)
            spec = ModelSpec(_config(config, model, max_tokens), pooling, options.parse_layers(layers))
            embedder = stack.enter_context(spec.load())
            wanted = None if columns is None else [name.strip() for name in columns.split(",")]
            found = _scanned(source, text_column, wanted, block_rows)
            prompt = embedder.of(input_type, prompt_name).prompt(prompt_name, input_type)
            encoder = next(iter(spec.config.models.values())).encoder
            asked = _manifest(found, embedder, encoder, prompt, block_rows)
            manifest = stack.enter_context(_opened(folder, asked))
            job = Job(folder.absolute(), manifest, found, prompt_name, input_type, truncate, on_error == "skip")
            left = _left(job, done)
            with _kept(done), _bar(done) as advance:
                if ray is None:
                    for receipt in _here(job, embedder, left, advance):
                        done.add(receipt)
                elif left:
                    from service.cli.datasets.on_ray import Resources, connected, on_ray

                    embedder.close()  # it was loaded for its fingerprint alone
                    cluster = stack.enter_context(connected(ray))
                    for receipt in on_ray(cluster, spec, job, left, Resources(worker_cpus, workers)):
                        done.add(receipt)
                        advance(found.blocks[receipt.block].extent.rows)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted: {done}. {_GO_ON}") from None
    _tell(done)
    if done.left_out:
        raise typer.Exit(1)


def _require_apart(source: Path, folder: Path) -> None:
    """Raise `Failure` where the output is part of the input, or the other way round."""
    read, written = source.resolve(), folder.resolve()
    if read == written or read in written.parents or written in read.parents:
        raise Failure(f"{folder} is a part of {source}, or the other way round. Write to a folder of its own.", 2)


def _require_ours(folder: Path) -> None:
    """Raise `Failure` where a folder holds other things than a dataset."""
    from service.cli.dataset_folder import MANIFEST, foreign_files, read_manifest

    if folder.exists() and not folder.is_dir():
        raise Failure(f"{folder} is a file. Name a folder to write to.", 2)
    if folder.exists() and read_manifest(folder) is None and (others := foreign_files(folder)):
        more = ", ..." if len(others) > _MOST_NAMED else ""
        raise Failure(
            f"{folder} holds other things ({', '.join(others[:_MOST_NAMED])}{more}) and no {MANIFEST} of a dataset. "
            "Name a new or an empty folder.",
            2,
        )


def _config(config: Path | None, model: str | None, max_tokens: int | None) -> Config:
    if config is not None:
        if not config.name.endswith((".yaml", ".yml")):
            raise Failure(f"--config {config}: its name does not end in .yaml or .yml.", 2)
        return single_config(str(config), model, max_tokens)
    if model is None:
        raise Failure(
            "no model is named: give --model with a folder, a Hugging Face id or bundled/NAME, or --config.", 2
        )
    return single_config(model, None, max_tokens, served=True)


def _scanned(source: Path, text_column: str, columns: Sequence[str] | None, block_rows: int) -> Input:
    from service.cli.datasets.inputs import input_files, scan

    with progress_bar() as bar:
        total = sum(path.stat().st_size for path in input_files(source).values())
        task = bar.add_task("reading", total=total)
        return scan(source, text_column, columns, block_rows, lambda count: bar.advance(task, count))


def _manifest(found: Input, embedder: Embedder, encoder: str, prompt: str, block_rows: int) -> Manifest:
    from service.cli.dataset_folder import Manifest

    return Manifest(
        fingerprint=embedder.fingerprint,
        model=encoder,
        pooling=str(embedder.recipe.pooler.spec),
        dimension=embedder.dim,
        prompt=prompt,
        text_column=found.text_column,
        columns=tuple(column.name for column in found.columns),
        block_rows=block_rows,
        files=found.files,
        blocks=len(found.blocks),
    )


@contextmanager
def _opened(folder: Path, asked: Manifest) -> Iterator[Manifest]:
    """Have a folder for this process alone, and yield its manifest: `asked`, or one that is as good.

    Raises:
        Failure: another process writes to it, it cannot be written, or it was begun with something else.
    """
    from service.cli.dataset_folder import read_manifest, remove_partial, write_manifest

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure(f"another process writes to {folder}. Wait for its end, or stop it.") from None
            except OSError:
                pass  # a disk of a network that has no locks
            remove_partial(folder)
            there = read_manifest(folder)
            if there is None:
                write_manifest(folder, asked)
            else:
                _require_same(folder, there, asked)
            yield there or asked
            remove_partial(folder)  # of machines that died
    except OSError as error:
        remedy = _NO_ROOM if error.errno in _FULL else "Name a folder that can be written."
        raise Failure(f"{folder}: {error.strerror}. {remedy}", 1 if error.errno in _FULL else 2) from None


def _require_same(folder: Path, there: Manifest, asked: Manifest) -> None:
    """Raise `Failure` where a folder was begun with another model, input or setting."""
    go_on = "Give the same ones to go on, or name another folder."
    if there.fingerprint != asked.fingerprint:
        raise Failure(
            f"{folder} holds vectors of {there.model} with pooling {there.pooling}, fingerprint {there.fingerprint}; "
            f"{asked.model} with pooling {asked.pooling} has fingerprint {asked.fingerprint}, and the two cannot be "
            f"compared. {go_on}",
            2,
        )
    before, now = ({file.name: file for file in each.files} for each in (there, asked))
    for name in (*before, *now):
        if before.get(name) != now.get(name):
            what = "has changed" if name in before and name in now else "is new" if name in now else "is gone"
            raise Failure(
                f"{name} of the input {what} since {folder} was begun, so that its blocks are others. Embed the "
                "input as it was, or name another folder.",
                2,
            )
    names = {"text_column": "--text-column", "columns": "--columns", "block_rows": "--block-rows", "prompt": "prompt"}
    for key, name in names.items():
        if (old := getattr(there, key)) != (new := getattr(asked, key)):
            old, new = (",".join(value) if isinstance(value, tuple) else repr(value) for value in (old, new))
            raise Failure(f"{folder} was begun with {name} {old}, which is {new} now. {go_on}", 2)
    if list(before) != list(now):
        raise Failure(f"{folder} was begun with the files of the input in another order. Name another folder.", 2)


def _left(job: Job, done: _Done) -> list[Block]:
    """Return the blocks that are not written, and note those that are."""
    from service.cli.dataset_folder import blocks_there

    there = blocks_there(job.folder, job.manifest)
    done.all_blocks, done.all_rows, done.began = len(job.source.blocks), job.source.rows, time.monotonic()
    for number, rows in there.items():
        done.blocks += 1
        done.before += job.source.blocks[number].extent.rows
        done.rows += rows
        done.left_out += job.source.blocks[number].extent.rows - rows
    return [block for block in job.source.blocks if block.number not in there]


def _here(job: Job, embedder: Embedder, blocks: Sequence[Block], advance: Advance) -> Iterator[Receipt]:
    """Embed blocks in this process, one after the other."""
    from service.cli.datasets.worker import Worker

    worker = Worker(job, embedder)
    try:
        for block in blocks:
            yield worker.embed(block, advance)
    finally:
        worker.close()


@contextmanager
def _kept(done: _Done) -> Iterator[None]:
    """Say, where something fails, what is written all the same."""
    try:
        yield
    except (Failure, ServiceError) as error:
        status = error.exit_status if isinstance(error, Failure) else 2
        raise Failure(f"{error}\n{done}. {_GO_ON}", status) from None
    except OSError as error:
        remedy = _NO_ROOM if error.errno in _FULL else _GO_ON
        said = f"{error.filename or done.folder}: {error.strerror or error}."
        raise Failure(f"{said} {remedy}\n{done}.") from None


@contextmanager
def _bar(done: _Done) -> Iterator[Advance]:
    """Show rows as they are done, on a terminal."""
    with rated_bar() as bar:
        task = bar.add_task("", total=done.all_rows, completed=done.before, rate="")
        count = 0

        def advance(more: int) -> None:
            nonlocal count
            count += more
            bar.update(task, advance=more, rate=f"{count / done.seconds:.0f} rows/s")

        yield advance


def _tell(done: _Done) -> None:
    warn_about_unknown(done.unknown)
    for told in done.told:
        warn(told)
    if done.left_out:
        warn(f"{done.left_out} rows are left out; {done.folder}/block-*.rejects.jsonl has each with its reason.")
    now = done.rows + done.left_out - done.before
    rate = f", {now} of them now in {done.seconds:.1f} s, {now / done.seconds:.1f} rows/s" if now else ""
    out.print(f"{done.rows} rows in {done.blocks} blocks of {done.folder}{rate}")
