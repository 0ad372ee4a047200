"""`millpond quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from service.cli.console import Failure, Interrupted, err, out
from service.cli.single import named_model
from service.config import Config, ModelConfig, load_config
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.checkpoint import Checkpoint
    from service.encoder import Runtime


def quantize(
    config: Annotated[Path, typer.Option("--config", "-c", help="The deployment's YAML file.")],
    calibration: Annotated[
        Path | None,
        typer.Option(help="Texts like those that will be served, one a line; instead of runtime.calibration."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only the encoder of this model.")] = None,
) -> None:
    """Quantise a deployment's encoders to int8 and keep the results, ahead of serving it with `precision: int8`.

    Prints how near the int8 vectors are to float32's, on texts that were held out from calibration. An encoder
    that int8 changes too much is refused.
    """
    overrides = {"runtime.precision": "int8", "runtime.calibration": calibration and str(calibration)}
    settings = load_config(config, overrides=overrides)
    encoders = _encoders(settings, model)
    done: dict[str, Runtime] = {}
    errors: list[str] = []
    for name, asked in encoders.items():
        try:
            done |= _quantize(asked, settings)
        except ServiceError as error:
            errors.append(f"{config}: models.{name}: {error}")
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted: {len(done)} of {len(encoders)} encoders are quantised. "
                "Run the same command again to go on."
            ) from None
    if done:
        _print(done)
    if errors:
        raise Failure("\n".join(errors), 2)


def _encoders(settings: Config, only: str | None) -> dict[str, ModelConfig]:
    """One model for each encoder of the deployment, by name."""
    asked = settings.models if only is None else {only: named_model(settings, only)}
    distinct = {(one.encoder, one.revision, one.trust_remote_code): name for name, one in reversed(asked.items())}
    return {name: asked[name] for name in sorted(distinct.values(), key=list(asked).index)}


def _quantize(asked: ModelConfig, settings: Config) -> dict[str, Runtime]:
    """Quantise the encoder of a model, or those of its routes, and return each by its name."""
    from service.checkpoint import Checkpoint, read_model

    read = read_model(asked.encoder, asked.revision)
    if isinstance(read, Checkpoint):
        return {asked.encoder: _quantize_route(asked, read, settings)}
    distinct = {route.name: route for route in read.named().values() if route.table is None}
    return {name: _quantize_route(asked, route, settings) for name, route in distinct.items()}


def _quantize_route(asked: ModelConfig, checkpoint: Checkpoint, settings: Config) -> Runtime:
    from service.encoder.loading import Source
    from service.encoder.runtimes.registry import load_runtime

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task(checkpoint.name, total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{checkpoint.name}: {stage}", completed=done, total=total)

        cache, trust = settings.runtime.cache, asked.trust_remote_code
        source = Source(checkpoint, cache, trust_remote_code=trust, progress=show)
        return load_runtime(source, settings.runtime, lambda _: None)[0]


def _print(done: dict[str, Runtime]) -> None:
    from service.encoder.quantization import LEAST

    numbers = (Column(label, justify="right") for label in ("texts", *(label for _, label, _ in LEAST)))
    table = Table(Column("int8 against fp32", overflow="fold"), "runtime", *numbers, box=None, pad_edge=False)
    for encoder, runtime in done.items():
        agreement = runtime.agreement
        assert agreement is not None  # as always with int8, which was asked for
        values = (f"{value:.3f}" for _, value, _ in agreement.compared())
        table.add_row(encoder, runtime.backend, str(agreement.texts), *values)
    table.add_row("at least", "", "", *(f"{least:.3f}" for *_, least in LEAST))
    out.print(table)
