"""`millpond compact`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli import options
from service.cli.client import Service, connect
from service.cli.console import out


def compact(
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    store: Annotated[
        Path | None, typer.Option(help="Instead of asking a running service, compact the store of a stopped one.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Write the file anew; a running service stores nothing meanwhile.")
    ] = False,
) -> None:
    """Give space back to the disk that deleted documents and collections have left in the store's file.

    A running service does it in small steps beside all other requests. The file of an earlier release has to be
    written anew once, which takes as much free disk as the file holds, twice over.
    """
    service = Service(url, None, api_key)
    before, after = _of_folder(store, rebuild) if store else asyncio.run(_of_service(service, rebuild))
    out.print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")


def _of_folder(folder: Path, rebuild: bool) -> tuple[int, int]:
    from service.cli.stores import opened

    with opened(folder) as store:
        before = store.space()
        if rebuild or not before.incremental:
            store.rebuild_file()
        while store.release():
            pass
        store.checkpoint()
        return before.bytes, store.space().bytes


async def _of_service(service: Service, rebuild: bool) -> tuple[int, int]:
    async with connect(service) as client:
        answer = await client.ask("POST", "/compact", {"rebuild": rebuild})
        return answer["bytes_before"], answer["bytes"]
