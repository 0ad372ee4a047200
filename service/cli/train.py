"""`millpond train`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Column, Table

from service.cli import options
from service.cli.console import Failure, Interrupted, err, out, progress_bar, require, say, warn
from service.cli.single import lone_model

if TYPE_CHECKING:
    from pooling.layers import Stack
    from pooling.training import Epoch, Splits
    from service.embedding.embedder import Embedder
    from service.training.fitting import Report
    from service.training.state_cache import CachedStates

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
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Fit the weights of the encoder's layers instead, under a pooling that has nothing to fit: by "
            "default the model's own, else the mean.",
        ),
    ] = False,
    dev: Annotated[
        Path | None, typer.Option(help="To choose by; a tenth of train is held out where there is none.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="To judge the chosen one by; a tenth of train is held out likewise.")
    ] = None,
    max_tokens: options.MaxTokens = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training pairs.")] = 8,
    batch_size: Annotated[int, typer.Option(min=2, help="Training pairs a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Adam's.")] = 0.002,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better dev score before it stops.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How often each is fitted; the parameters are averaged.")] = 1,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where token states are kept; by default ~/.cache/millpond, or what XDG_CACHE_HOME names."),
    ] = None,
    cache_limit: Annotated[
        float,
        typer.Option(min=0.0, help="Most gigabytes of token states there; those unused for longest make room."),
    ] = 10.0,
    states: Annotated[Literal["float16", "float32"], typer.Option(help="What token states are kept in.")] = "float16",
) -> None:
    """Fit a pooler to your data over an encoder that stays as it is, and say whether it is worth having.

    The encoder reads each text once. Its token states are kept on disk (see
    --cache and --cache-limit), for later runs too, and mapped into memory, so
    that only what is at work takes room there. An interrupted run goes on from
    what is kept.

    The fitted pooler is compared with those that need no fitting, on data that
    has had no part in fitting or choosing it, and recommended only where it is
    better beyond noise.
    """
    for option, path in (("--train", train), ("--dev", dev), ("--test", test)):
        require(option, path)
    from pooling.layers import Stack
    from pooling.tasks import DataError
    from pooling.training import Settings, StatesError, read_splits
    from service.training import fitting
    from service.training.export import new_folder

    settings = Settings(epochs, batch_size, learning_rate, patience)
    try:
        with new_folder(output) as folder:
            splits = read_splits(train, dev, test)
            for note in splits.notes:
                warn(note)
            with lone_model(model, max_tokens) as embedder:
                embedder.require_one_route("the fitting of a pooling")
                recipe = embedder.recipe
                stack = None
                if layers:
                    depth = embedder.encoder.carry_layers()
                    stack = Stack(tuple(range(depth + 1)))
                    specs = pooling or fitting.default_under_layers(recipe)
                    poolers = fitting.build_over_layers(specs, recipe, depth)
                else:
                    poolers = fitting.build(pooling or fitting.default_poolings(recipe.pooler.dim), recipe)
                found = _states(embedder, splits, cache, states, cache_limit, stack)
            del embedder  # to free its weights
            pooler, report = fitting.train(
                recipe, splits, found, poolers, settings, seeds=seeds, on_epoch=_print_epoch
            )
            data = {split: path and str(path) for split, path in (("train", train), ("dev", dev), ("test", test))}
            about = {"model": model, **data, "max_tokens": recipe.max_tokens, **asdict(settings), "seeds": seeds}
            fitting.save(folder, recipe, pooler, report, about)
    except (DataError, StatesError) as error:
        raise Failure(str(error), 2) from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: nothing is written to {output}. Run the same command again to go on; token states that "
            "are in the cache are not made anew."
        ) from None
    _print(report, model, output, max_tokens, layers)


def _states(
    model: Embedder,
    splits: Splits,
    cache: Path | None,
    dtype: Literal["float16", "float32"],
    limit: float,
    layers: Stack | None,
) -> CachedStates:
    from service.encoder.artifacts import Artifacts
    from service.training.state_cache import StateCache, size

    store = StateCache(model, Artifacts(cache), dtype=dtype, limit=int(limit * 1e9), layers=layers)
    shards = store.plan([part for task in (splits.train, splits.dev, splits.test) for part in task.parts])
    store.make_room(shards)
    texts, missing = sum(len(shard.part.texts) for shard in shards), store.missing(shards)
    total = size(sum(shard.bytes for shard in shards))
    err.print(f"token states of {texts} texts: {total}, of which {size(missing)} are still to be made")
    with progress_bar() as bar:
        task = bar.add_task("encoding", total=texts)
        return store.states(shards, lambda count: bar.advance(task, count))


def _print_epoch(spec: str, seed: int | None, epoch: Epoch) -> None:
    which = "average of the seeds" if seed is None else f"seed {seed}, epoch {epoch.number}"
    loss = "" if epoch.loss is None else f"loss {epoch.loss:.4f}, "
    err.print(f"{spec}: {which}: {loss}dev {epoch.score:.2f}")


def _print(report: Report, model: str, output: Path, max_tokens: int | None, layers: bool) -> None:
    verdict = report.verdict
    splits = (Column(split, justify="right") for split in report.scores[verdict.pooling])
    table = Table(Column(f"{report.metric} x 100", overflow="fold"), *splits, box=None, pad_edge=False)
    for name, scores in report.scores.items():
        fitted = " (fitted)" if name in report.fitted else ""
        table.add_row(name + fitted, *(f"{score:.2f}" for score in scores.values()))
    out.print(table)
    out.print()
    lead = (
        f"{verdict.score:.2f} on test against {verdict.other_score:.2f} for {verdict.other}, the best that needs no "
        f"fitting: {verdict.lead:+.2f} (95 % interval {verdict.low:+.2f} to {verdict.high:+.2f})"
    )
    settings: dict[str, Any] = {"encoder": shlex.quote(model) if " " in model else model}
    if verdict.worth_it:
        say(f"{verdict.pooling} is worth having: {lead}.")
        if layers:
            settings["encoder"] = output
        else:
            settings["pooling"] = f"{{weights: {output / 'pooler'}}}"
    else:
        why = "which is worse" if verdict.high < 0 else "which is within noise"
        say(f"Use pooling: {verdict.other}. {verdict.pooling} has {lead}, {why}.")
        settings["pooling"] = verdict.other
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    say("\nmodels:\n  default:")
    for key, value in settings.items():
        say(f"    {key}: {value}")
    say(
        f"\n{output} is the whole model with the fitted {'weights' if layers else 'pooler'}, for encoder: {output}, "
        f"or SentenceTransformer({str(output)!r}, trust_remote_code=True)."
    )
