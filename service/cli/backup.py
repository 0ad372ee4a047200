"""`millpond backup` and `millpond restore`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import Failure, out, progress_bar
from service.config import load_config

Store = Annotated[Path | None, typer.Option("--store", help="The store's folder; by default that of --config.")]
Config = Annotated[Path, typer.Option("--config", "-c", help="The deployment's YAML file, for its store.path.")]
_CONFIG = Path("configs/mean.yaml")


def backup(
    destination: Annotated[Path, typer.Argument(help="The folder to make.")],
    store: Store = None,
    config: Config = _CONFIG,
) -> None:
    """Copy a store into a new folder, while a service uses it or not.

    The copy holds all that is committed at that moment. It is checked, and appears once it is whole.
    """
    from service.store.backup import back_up

    with _bar("copying") as advance:
        copied = back_up(_folder(store, config), destination, advance)
    out.print(f"{copied.bytes / 1e6:.1f} MB in {destination}, SHA-256 {copied.sha256}")


def restore(
    backup: Annotated[Path, typer.Argument(help="A folder that `millpond backup` made, or a copy of a store.")],
    store: Store = None,
    config: Config = _CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Replace the store that is there, which is lost.")] = False,
) -> None:
    """Put a backup back as the store of a service that is stopped."""
    from service.store.backup import restore

    folder = _folder(store, config)
    with _bar("restoring") as advance:
        copied = restore(backup, folder, force=force, advance=advance)
    out.print(f"{copied.bytes / 1e6:.1f} MB in {folder}")


def _folder(store: Path | None, config: Path) -> Path:
    if store is not None:
        return store
    settings = load_config(config).store
    if settings.engine != "embedded":
        raise Failure(
            f"{config} keeps documents in Milvus (store.engine: {settings.engine}), which has tools of its own for "
            "backups: see milvus-backup. This command copies the file of the engine 'embedded'; name its folder by "
            "--store.",
            2,
        )
    return settings.path


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], object]]:
    with progress_bar() as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)
