"""`millpond config`: what a deployment would serve, before it is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Column, Table

from service.cli.console import Failure, out, warn
from service.config import ModelConfig, RerankerConfig, SparseConfig, load_config
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.checkpoint import Checkpoint
    from service.embedding.recipe import Recipe
    from service.embedding.sparse.recipe import SparseRecipe

_OF_RERANKERS: Final = ("reranker", "encoder", "labels", "activation", "max tokens")
_OF_SPARSE: Final = ("sparse model", "encoder", "strategy", "activation", "max tokens", "prompts")

app = typer.Typer(no_args_is_help=True, help="Look at a deployment's YAML file.")


@app.callback()
def _group() -> None:
    """Look at a deployment's YAML file."""


@app.command()
def check(file: Annotated[Path, typer.Argument(help="The YAML file.")]) -> None:
    """Check a config and what its models' checkpoints declare. No weights are loaded.

    A model named by a Hugging Face id is downloaded first, as serving it would do.
    """
    settings = load_config(file)
    headers = ("model", "encoder", "pooling asked", "declared", "normalize", "max tokens", "prompts")
    table = Table(*(Column(header, overflow="fold") for header in headers), box=None, pad_edge=False)
    notes: list[str] = []
    errors: list[str] = []
    for name, model in settings.models.items():
        try:
            resolved = _resolve(name, model, settings.runtime.cache)
        except ServiceError as error:
            at = "" if str(error).startswith("models.") else f"models.{name}: "
            errors.append(f"{file}: {at}{error}")
            continue
        for route, found in resolved.items():
            notes += [f"models.{name}: {route and f'{route}: '}{note}" for note in found.warnings]
            table.add_row(
                f"{name} ({route})" if route else name,
                str(found.checkpoint.transformer if route else found.checkpoint.folder),
                "declared" if model.pooling == "declared" else found.pooler.spec,
                found.checkpoint.pooling or "none",
                "yes" if found.normalize else "no",
                str(found.max_tokens),
                ", ".join(f"{key}: {prompt!r}" for key, prompt in found.prompts.items()) or "none",
            )
    ranking = Table(*(Column(header, overflow="fold") for header in _OF_RERANKERS), box=None, pad_edge=False)
    for name, reranker in settings.rerankers.items():
        try:
            ranking.add_row(name, *_resolve_reranker(name, reranker, settings.runtime.cache))
        except ServiceError as error:
            at = "" if str(error).startswith("rerankers.") else f"rerankers.{name}: "
            errors.append(f"{file}: {at}{error}")
    sparse = Table(*(Column(header, overflow="fold") for header in _OF_SPARSE), box=None, pad_edge=False)
    for name, sparse_model in settings.sparse.items():
        try:
            made = _resolve_sparse(name, sparse_model, settings.runtime.cache)
        except ServiceError as error:
            at = "" if str(error).startswith("sparse.") else f"sparse.{name}: "
            errors.append(f"{file}: {at}{error}")
            continue
        notes += [f"sparse.{name}: {note}" for note in made.warnings]
        declared = made.declared
        prompts = ", ".join(f"{key}: {prompt!r}" for key, prompt in made.prompts.items()) or "none"
        folder = str(declared.checkpoint.folder)
        sparse.add_row(name, folder, declared.strategy, declared.activation, str(made.max_tokens), prompts)
    for each in (table, ranking, sparse):
        if each.row_count:
            out.print(each)
    for note in notes:
        warn(note)
    if errors:
        raise Failure("\n".join(errors), 2)


def _resolve(name: str, model: ModelConfig, cache: Path | None) -> dict[str, Recipe]:
    """Return the recipe of a model, or those of its routes by name."""
    from service.checkpoint import Checkpoint, read_model
    from service.embedding.loading import require_equal_sizes

    read = read_model(model.encoder, model.revision)
    if isinstance(read, Checkpoint):
        return {"": _resolve_route(name, model, read, cache)}
    found = {route: _resolve_route(name, model, each, cache) for route, each in read.named().items()}
    require_equal_sizes(name, {route: recipe.dim for route, recipe in found.items()})
    return found


def _resolve_route(name: str, model: ModelConfig, checkpoint: Checkpoint, cache: Path | None) -> Recipe:
    from service.embedding.recipe import needs_layers, resolve
    from service.encoder.loading import Source
    from service.encoder.probe import LAYERS

    source = Source(checkpoint, cache, trust_remote_code=model.trust_remote_code)
    depth = next((checkpoint.config[key] for key in LAYERS if isinstance(checkpoint.config.get(key), int)), None)
    if needs_layers(name, model, checkpoint) and depth is None:  # the encoder will tell once it is loaded
        model = model.model_copy(update={"layers": "last"})
    return resolve(name, model, checkpoint, source.tokenizer, source.anatomy, depth)


def _resolve_reranker(name: str, settings: RerankerConfig, cache: Path | None) -> tuple[str, ...]:
    from service.checkpoint import read_cross_encoder
    from service.encoder.loading import Source
    from service.encoder.task import Scores
    from service.ranking.recipe import resolve

    declared = read_cross_encoder(settings.encoder, settings.revision)
    source = Source(declared.checkpoint, cache, trust_remote_code=settings.trust_remote_code, task=Scores())
    found = resolve(name, settings, declared, source.tokenizer, source.anatomy.positions)
    activation = type(found.activation).__name__
    return str(declared.checkpoint.folder), ", ".join(found.labels), activation, str(found.max_tokens)


def _resolve_sparse(name: str, settings: SparseConfig, cache: Path | None) -> SparseRecipe:
    from service.checkpoint import read_sparse_encoder
    from service.embedding.sparse.recipe import resolve
    from service.encoder.loading import Source
    from service.encoder.splade import Splade

    declared = read_sparse_encoder(settings.encoder, settings.revision)
    task = Splade(declared.strategy, declared.activation)
    source = Source(declared.checkpoint, cache, trust_remote_code=settings.trust_remote_code, task=task)
    return resolve(name, settings, declared, source.tokenizer, source.anatomy.positions)
