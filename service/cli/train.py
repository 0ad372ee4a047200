"""`millpond train`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.cli.console import INTERRUPTED, Failure, err, out, warn

if TYPE_CHECKING:
    from pooling.training import Epoch, Splits, States, Text
    from service.embedder import Embedder
    from service.recipe import Recipe
    from service.states import Part, StateCache
    from service.training import Report

_DATA = (
    "Scored pairs (sentence1, sentence2, score) or positive pairs (anchor, positive) as .csv, .tsv or .jsonl, or a "
    "BEIR folder; or a folder with such a file for each of train, dev and test."
)


def train(
    model: Annotated[
        str, typer.Option(help="The encoder: a folder, a Hugging Face id, or bundled/all-MiniLM-L6-v2.")
    ],
    train: Annotated[Path, typer.Option(help=_DATA)],
    output: Annotated[Path, typer.Option(help="The new folder: the model with the fitted pooler in it.")],
    pooling: Annotated[
        list[str] | None,
        typer.Option(
            help="What to fit, such as 'attention'; several times to try several. By default a set of them."
        ),
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(help="To choose by; a tenth of train is held out where there is none.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="To judge the chosen one by.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest text; by default as declared.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training pairs.")] = 8,
    batch_size: Annotated[int, typer.Option(min=2, help="Training pairs a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Adam's.")] = 0.002,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better dev score before it stops.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How often each is fitted; the parameters are averaged.")] = 1,
    cache: Annotated[
        Path | None, typer.Option(help="Where token states are kept; by default the user's cache.")
    ] = None,
    cache_limit: Annotated[float, typer.Option(min=0.0, help="Most gigabytes of token states there.")] = 10.0,
    states: Annotated[Literal["float16", "float32"], typer.Option(help="What token states are kept in.")] = "float16",
) -> None:
    """Fit a pooler to your data over an encoder that stays as it is, and say whether it is worth having.

    The encoder reads each text once; its token states are kept on disk for this run and later ones. The fitted
    pooler is compared with those that need no fitting, and recommended only where it is better beyond noise.
    """
    from pooling.data import DataError
    from pooling.training import Settings, StatesError, read_splits
    from service import training
    from service.export import new_folder

    settings = Settings(epochs, batch_size, learning_rate, patience)
    progress = _Encoding()
    try:
        with new_folder(output) as folder:
            splits = read_splits(train, dev, test)
            for note in splits.notes:
                warn(note)
            with _loaded(model, max_tokens) as embedder:
                recipe = embedder.recipe
                poolers = training.build(pooling or training.default_poolings(recipe.pooler.dim), recipe)
                found, places = _states(embedder, splits, cache, states, cache_limit, progress)
            del embedder  # its weights are not needed any more
            pooler, report = training.train(recipe, splits, found, places, poolers, settings, seeds=seeds, told=_tell)
            about = {"model": model, "train": train, "dev": dev, "test": test, "max_tokens": recipe.max_tokens}
            training.save(folder, recipe, pooler, report, about | {"settings": settings, "seeds": seeds})
    except (DataError, StatesError) as error:
        raise Failure(str(error), 2) from None
    except KeyboardInterrupt:
        raise Failure(
            f"Interrupted: nothing is written to {output}. {progress.kept} Run the same command again to go on.",
            INTERRUPTED,
        ) from None
    _print(report, model, recipe, output, max_tokens)


@contextmanager
def _loaded(model: str, max_tokens: int | None) -> Iterator[Embedder]:
    """The model, in float32 on PyTorch: one pass is not worth a conversion, and its states are the reference."""
    from service.checkpoint import read_checkpoint
    from service.config import Config
    from service.models import Models

    declares = read_checkpoint(model).pooling is not None
    settings = {
        "encoder": model,
        "pooling": "declared" if declares else "mean",
        "max_tokens": max_tokens or "declared",
    }
    config = {"models": {"model": settings}, "runtime": {"backend": "torch", "precision": "fp32"}}
    models = Models(Config.model_validate(config))
    try:
        yield models.get()
    finally:
        models.close()


class _Encoding:
    """How far the encoder is through the texts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.cache: StateCache | None = None

    @property
    def kept(self) -> str:
        """What a later run finds done."""
        if self.cache is None:
            return ""
        there = [part for part in self.parts if not self.cache.missing([part])]
        done, total = (sum(len(part.texts) for part in parts) for parts in (there, self.parts))
        return f"The token states of {done} of {total} texts are kept."


def _states(
    model: Embedder,
    splits: Splits,
    cache: Path | None,
    dtype: Literal["float16", "float32"],
    limit: float,
    progress: _Encoding,
) -> tuple[States, dict[Text, int]]:
    from service.encoder.artifacts import Artifacts
    from service.states import StateCache, size

    store = StateCache(model, Artifacts(cache), dtype=dtype, limit=int(limit * 1e9))
    # What is held out for dev comes from train: together they are the same texts whichever way they are cut.
    groups = [[*splits.train.texts, *splits.dev.texts], splits.test.texts if splits.test else []]
    parts = store.plan(groups)
    store.make_room(parts)
    progress.cache, progress.parts = store, parts
    texts, missing = sum(len(part.texts) for part in parts), store.missing(parts)
    total = size(sum(part.bytes for part in parts))
    err.print(f"token states of {texts} texts: {total}, of which {size(missing)} are still to be made")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task("encoding", total=texts)
        return store.states(parts, lambda count: bar.advance(task, count))


def _tell(spec: str, seed: int | None, epoch: Epoch) -> None:
    which = "average of the seeds" if seed is None else f"seed {seed}, epoch {epoch.number}"
    loss = "" if epoch.loss is None else f"loss {epoch.loss:.4f}, "
    err.print(f"{spec}: {which}: {loss}dev {epoch.score:.2f}")


def _print(report: Report, model: str, recipe: Recipe, output: Path, max_tokens: int | None) -> None:
    verdict = report.verdict
    splits = list(report.scores[verdict.pooling])
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{report.metric} x 100", overflow="fold")
    for split in splits:
        table.add_column(split, justify="right")
    for name, scores in report.scores.items():
        fitted = " (fitted)" if name in report.fitted else ""
        table.add_row(name + fitted, *(f"{scores[split]:.2f}" for split in splits))
    out.print(table)
    out.print()
    lead = (
        f"{verdict.score:.2f} on {report.judged_on} against {verdict.other_score:.2f} for {verdict.other}, the best "
        f"of the others: {verdict.lead:+.2f} (95 % interval {verdict.low:+.2f} to {verdict.high:+.2f})"
    )
    settings: dict[str, Any] = {"encoder": shlex.quote(model) if " " in model else model}
    if verdict.worth_it:
        out.print(f"{verdict.pooling} is worth having: {lead}.")
        settings["pooling"] = f"{{weights: {output / 'pooler'}}}"
    else:
        why = "which is worse" if verdict.high < 0 else "which is within noise"
        out.print(f"Keep pooling: {verdict.other}. {verdict.pooling} has {lead}, {why}.")
        settings["pooling"] = verdict.other
    if report.judged_on == "dev":
        out.print("The dev split chose it too, which flatters it; a test split says more.")
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    out.print("\nmodels:\n  default:")
    for key, value in settings.items():
        out.print(f"    {key}: {value}")
    out.print(
        f"\n{output} is the whole model with the fitted pooler, for encoder: {output}, or "
        f"SentenceTransformer({str(output)!r}, trust_remote_code=True)."
    )
