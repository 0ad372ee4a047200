"""`millpond evaluate`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import options
from service.cli.console import Failure, Interrupted, progress_bar, require, say, warn
from service.errors import shortened

if TYPE_CHECKING:
    from pooling.tasks import Task
    from service import evaluation
    from service.embedding.chunking import Chunking


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="A folder, a Hugging Face id, bundled/all-MiniLM-L6-v2, or a deployment's YAML file."),
    ],
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pairs with a score (sentence1, sentence2, score) or that belong together (anchor, positive): "
            ".csv, .tsv or .jsonl."
        ),
    ] = None,
    retrieval: Annotated[list[Path] | None, typer.Option(help="A folder in BEIR's layout.")] = None,
    classification: Annotated[
        list[Path] | None, typer.Option(help="Labelled texts (text, label): .csv, .tsv or .jsonl.")
    ] = None,
    pooling: Annotated[
        list[str] | None, typer.Option(help="A pooling to compare, several times for several; by default a set.")
    ] = None,
    pooler: Annotated[
        list[str] | None, typer.Option(help="The folder of a fitted pooler to compare as well.")
    ] = None,
    chunking: Annotated[
        str | None,
        typer.Option(
            help="With --retrieval alone: compare also documents cut into spans, tokens=64,overlap=16 or sentence, "
            "that are embedded late or early, each found by its best span; then by default of one pooling."
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            help="With --retrieval alone: compare also what is found after the best documents are scored anew, by "
            "maxsim, or maxsim,depth=50 for how many; then by default of one pooling."
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Score every layer of the encoder too, and means of several, from the same pass: a curve by layer "
            "of the poolings that are given, or of the model's own.",
        ),
    ] = False,
    dimensions: Annotated[
        str | None,
        typer.Option(
            help="Score vectors cut to so many leading dimensions too, 256,128,64, from the same pass: a curve of "
            "the same poolings; by default of the dimensions that the checkpoint declares."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a folder.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pairs, queries or texts.")] = None,
    max_tokens: options.MaxTokens = None,
    name: Annotated[
        str | None, typer.Option("--model", help="Which model of a deployment; by default the default one.")
    ] = None,
    served: Annotated[
        bool,
        typer.Option(
            "--served",
            help="Run it as it would be served here, with runtime and precision chosen for this machine or by "
            "MILLPOND_RUNTIME__PRECISION, and not in float32; a deployment's YAML file always says how.",
        ),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="A file for all figures.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="A file for a page with plots.")] = None,
) -> None:
    """Compare poolings on your data: every one from the same pass over the encoder, and say which to use.

    Similarity, retrieval or classification scores, with intervals that tell a difference from noise; what is left
    of them when texts are spoiled; what each costs.
    """
    asked = {"pairs": pairs or [], "retrieval": retrieval or [], "classification": classification or []}
    for option, file in (("--json", json_file), ("--html", html_file)):
        _check_target(option, file)
    for option, paths in asked.items():
        require(f"--{option}", *paths)
    spans = None if chunking is None else _chunking(chunking, asked)
    depth = None if rerank is None else _depth(rerank, asked, chunking)
    kept = None if dimensions is None else _dimensions(dimensions)
    for option, given in (("--chunking", chunking), ("--rerank", rerank)):
        for curve, wanted in (("--layers", layers), ("--dimensions", kept is not None)):
            if wanted and given is not None:
                raise Failure(f"{curve}: goes without {option}. Compare the two in runs of their own.", 2)
    try:
        tasks = [
            (str(path), _task(option, path, split, limit))
            for option, paths in asked.items()
            for path in dict.fromkeys(paths)
        ]
        if not tasks:
            raise Failure("there is no data: give --pairs FILE, --retrieval FOLDER or --classification FILE.", 2)
        from service import evaluation
        from service.cli.single import single_model

        notes: list[str] = []
        with single_model(model, name, max_tokens, served=served) as embedder, _bar() as progress:
            defaults: Sequence[str] = evaluation.FIXED
            if spans is not None or depth is not None:
                defaults = () if embedder.recipe.checkpoint.pooling is not None else ("mean",)
            strategies = evaluation.choose(embedder, pooling or [], pooler or [], notes.append, defaults)
            curves = [each for each in strategies if pooling or each.name == embedder.recipe.pooler.spec]
            by_layers = evaluation.over_layers(curves, embedder.encoder.carry_layers()) if layers else []
            if kept is None and spans is None and depth is None:
                most = min((each.embedder.dim for each in curves), default=0)
                kept = [each for each in embedder.recipe.checkpoint.matryoshka if each <= most]
            by_dimensions = evaluation.leading(curves, kept or [])
            by_spans = [] if spans is None else evaluation.both_modes(strategies, spans)
            again = None if depth is None else evaluation.Reranking(embedder, depth)
            report = evaluation.evaluate(
                embedder,
                strategies,
                tasks,
                by_layers=by_layers,
                by_dimensions=by_dimensions,
                by_spans=by_spans,
                reranking=again,
                notes=notes,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: nothing is written. Run the same command again, or with --limit 200 for a quick look."
        ) from None
    from service.cli.evaluation import print_report

    command = None
    if report.fit:
        command = f"millpond train --model {shlex.quote(report.model)} --train TRAINING_DATA --output NEW_FOLDER"
    if json_file is not None:
        _write(json_file, json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n")
    if html_file is not None:
        from service.evaluation.page import page

        _write(html_file, page(report, command))
    for note in report.notes:
        warn(note)
    print_report(report)
    if command is not None:
        say(f"\nTo fit one:\n    {command}")


@contextmanager
def _bar() -> Iterator[evaluation.Progress]:
    with progress_bar() as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, total: int) -> None:
            if stage != bar.tasks[0].description:
                bar.reset(task, description=stage, total=total)
            bar.update(task, completed=done)

        yield show


def _task(option: str, path: Path, split: str, limit: int | None) -> Task:
    from pooling.tasks import DataError, read

    try:
        task = read(path, split)
    except DataError as error:
        raise Failure(str(error), 2) from None
    if task.layout != option:
        raise Failure(f"--{option} {path}: holds data for --{task.layout}. Give it with that.", 2)
    try:
        task = task if limit is None else task.limited(limit)
        task.check()
    except DataError as error:
        raise Failure(f"{path}: {error}", 2) from None
    return task


def _chunking(given: str, asked: Mapping[str, Sequence[Path]]) -> Chunking:
    from pydantic import ValidationError

    from service.api.schemas.spans import CutBody
    from service.cli.chunks import parse_chunking
    from service.embedding.chunking import Chunking

    if not asked["retrieval"] or asked["pairs"] or asked["classification"]:
        raise Failure(
            "--chunking: documents are cut where they are searched. Give --retrieval FOLDER, and --pairs and "
            "--classification in a run of their own.",
            2,
        )
    try:
        found = CutBody.model_validate(parse_chunking(given) or {"by": given})
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in problem["loc"])
        raise Failure(
            f"--chunking {shortened(given)}: {where}{problem['msg']}. Write it as tokens=64,overlap=16 or sentence; "
            "both modes are compared.",
            2,
        ) from None
    return Chunking(found.parsed(), "late")


def _dimensions(given: str) -> list[int]:
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isascii() and part.isdecimal() and 0 < len(part) < 7 for part in parts):
        raise Failure(f"--dimensions {shortened(given)}: write it as numbers with commas, 256,128,64.", 2)
    return [int(part) for part in parts]


def _depth(given: str, asked: Mapping[str, Sequence[Path]], chunking: str | None) -> int:
    from service.evaluation.reranking import DEPTH, MOST_DEPTH

    if not asked["retrieval"] or asked["pairs"] or asked["classification"] or chunking is not None:
        raise Failure(
            "--rerank: documents that are found whole are scored anew. Give --retrieval FOLDER, and --pairs, "
            "--classification and --chunking in a run of their own.",
            2,
        )
    try:
        wanted = options.parse_rerank(given) or {}
    except Failure:
        wanted = {}
    depth: int = wanted.get("depth", DEPTH)
    if wanted.get("by") != "maxsim" or not 1 <= depth <= MOST_DEPTH:
        how = f"write it as maxsim, or maxsim,depth=50 with a depth from 1 to {MOST_DEPTH}."
        raise Failure(f"--rerank {shortened(given)}: {how}", 2)
    return depth


def _check_target(option: str, file: Path | None) -> None:
    """Check that a file can be written, before minutes of work are spent."""
    if file is None:
        return
    if file.is_dir():
        raise Failure(f"{option} {file}: is a folder. Name a file.", 2)
    if not file.absolute().parent.is_dir():
        raise Failure(f"{option} {file}: there is no folder {file.parent}. Make it, or name another.", 2)


def _write(file: Path, text: str) -> None:
    """Write a file completely or not at all."""
    draft = file.with_name(f".{file.name}.part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}. Name a file that can be written.", 2) from None
    finally:
        draft.unlink(missing_ok=True)
