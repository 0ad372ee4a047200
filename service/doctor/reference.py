"""Reference vectors by sentence-transformers: the proof that a checkpoint is followed.

`python -m service.doctor.reference FOLDER [TASK]` makes them in a process of its own, from texts as JSON on standard
input to a NumPy array on standard output, so that a running service spends neither its time nor its memory on that.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.arrays import Vectors
from service.checkpoint import LEARNED_POOLINGS

Reference = Callable[[Path, Sequence[str], str | None], Awaitable[Vectors]]
"""From a folder, texts and what they are for to vectors (texts, dim); raises `NoReference`."""


_PATIENCE: Final = 600.0
"""Seconds that the process may take."""


class NoReference(Exception):
    """sentence-transformers does not load or run this folder; the message says why."""


async def here(folder: Path, texts: Sequence[str], task: str | None = None) -> Vectors:
    """Encode in this process."""
    return await asyncio.to_thread(encode, folder, texts, task)


async def apart(folder: Path, texts: Sequence[str], task: str | None = None) -> Vectors:
    """Encode in a process of its own, which uses one core."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(folder), *([] if task is None else [task])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            output, errors = await process.communicate(json.dumps(list(texts)).encode())
    except TimeoutError:
        raise NoReference(f"it took longer than {_PATIENCE:.0f} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise NoReference(lines[-1] if lines else f"it ended with status {process.returncode}")
    found: Vectors = np.load(io.BytesIO(output))
    return found


def encode(folder: Path, texts: Sequence[str], task: str | None = None) -> Vectors:
    """Run `SentenceTransformer(folder).encode(texts, task=task)`, each text alone, on the CPU in float32.

    Raises:
        NoReference: the folder cannot be loaded or run.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        with redirect_stdout(sys.stderr):  # standard output is for the vectors
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=_runs_ours_alone(folder)
            ).float()
            # One at a time, so that nothing is padded: to some architectures a text beside longer ones is another.
            vectors = model.encode(list(texts), batch_size=1, show_progress_bar=False, task=task)
            found: Vectors = np.asarray(vectors, dtype=np.float32)
    except Exception as error:  # it raises many kinds of errors for unknown folders
        raise NoReference(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None
    return found


def _runs_ours_alone(folder: Path) -> bool:
    """Return whether the folder's modules are those of sentence-transformers and of this package alone."""
    modules = folder / "modules.json"
    kinds = {str(module.get("type")) for module in _json(modules)} if modules.exists() else set()
    foreign = {kind for kind in kinds if not kind.startswith("sentence_transformers.")}
    if not foreign or not foreign <= set(LEARNED_POOLINGS):
        return False
    # A file of the folder that is named like our package would be run in its place.
    shadowed = (folder / "millpond.py").exists()
    return not shadowed and all("auto_map" not in _json(path) for path in folder.rglob("config.json"))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _main() -> None:
    import torch

    os.nice(10)
    with suppress(OSError):  # if memory runs out, Linux should end this process, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(1)
    try:
        vectors = encode(Path(sys.argv[1]), json.load(sys.stdin), *sys.argv[2:])
    except NoReference as error:
        raise SystemExit(str(error)) from None
    np.save(sys.stdout.buffer, vectors)


if __name__ == "__main__":
    _main()
