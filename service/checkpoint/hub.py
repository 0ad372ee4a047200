"""Models from the Hugging Face hub: what of a repository is needed, kept in the hub client's cache."""

from __future__ import annotations

import errno
import glob
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

from service.checkpoint.declarations import Module, check_first, listed_modules
from service.checkpoint.hashing import sha256
from service.checkpoint.router import all_modules, has_router
from service.errors import CheckpointError, brief

logger = logging.getLogger(__name__)

HUB_FILES: Final = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py", "*.jinja", "README.md"]
"""Patterns of the files that are downloaded from the hub; pickled weights are not among them."""

_MODULES: Final = "modules.json"
_DECLARATIONS: Final = [_MODULES, "config.json", "adapter_config.json", "router_config.json"]
_WHOLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_SHARDS: Final = "model-*-of-*.safetensors"
_ADAPTER: Final = "adapter_model.safetensors"
_COMMIT: Final = re.compile("[0-9a-f]{40}")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_PATIENCE: Final = 10.0
"""Seconds that the hub has to say which commit a branch stands for."""
_UNWRITABLE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def download(name: str, revision: str | None = None) -> Path:
    """Return a model's folder in the hub client's cache, with all files of it that are needed.

    No request is made where `revision` is a commit that is there already. A branch or a tag is looked up; where that
    fails, the commit that it stood for at the last start is used, under a warning.

    Raises:
        CheckpointError: what is needed is neither on the hub nor in the cache; says why, and what to do.
    """
    from huggingface_hub import is_offline_mode

    try:
        return _current(name, revision)
    except Exception as error:  # the hub client raises many kinds
        at = f" at revision {revision!r}" if revision else ""
        reason, remedy = (str(error), "") if isinstance(error, CheckpointError) else _explained(error, name, revision)
        try:
            folder = _fetched(name, revision, local_files_only=True)
        except Exception:
            if isinstance(error, CheckpointError):
                raise error from None
            raise CheckpointError(
                f"encoder {name!r}{at}: is neither a folder here nor to be had from the Hugging Face hub ({reason}). "
                f"{remedy}"
            ) from None
    level = logging.INFO if is_offline_mode() else logging.WARNING
    logger.log(level, "encoder %r%s starts from the cache, at commit %s: %s", name, at, folder.name, reason)
    return folder


def needed(files: Iterable[str], modules: Sequence[Module]) -> list[str]:
    """Return which files of a repository are needed: those of its modules, and no weights a second time.

    Args:
        files: paths of all its files.
        modules: what its `modules.json` lists; none for a plain encoder.
    """
    paths = [module.path.strip("/") for module in modules] or [""]
    folders = ["" if path == "." else path for path in paths]  # model2vec writes "." for the repository itself
    by_folder: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(file)
        folder = next((each for each in folders if each and path.is_relative_to(each)), str(path.parent))
        if (folder in {".", ""} or folder in folders) and any(fnmatch(path.name, each) for each in HUB_FILES):
            by_folder.setdefault("" if folder == "." else folder, []).append(file)
    return sorted(
        file
        for folder, inside in by_folder.items()
        for file in inside
        if (folder in folders or not file.endswith(".safetensors")) and _is_read(PurePosixPath(file), inside)
    )


def _is_read(file: PurePosixPath, beside: Iterable[str]) -> bool:
    """Whether a file is read beside others: weights come from one file, else from shards, else from any."""
    names = {PurePosixPath(other).name for other in beside if PurePosixPath(other).parent == file.parent}
    if file.name == _INDEX:
        return _WHOLE not in names
    if file.name == _ADAPTER:
        return True
    if file.suffix != ".safetensors":
        return True
    if _WHOLE in names:
        return file.name == _WHOLE
    return _INDEX not in names or fnmatch(file.name, _SHARDS)


def _current(name: str, revision: str | None) -> Path:
    """Return the folder of what a revision stands for now."""
    from huggingface_hub import HfApi

    if revision is not None and _COMMIT.fullmatch(revision):
        return _fetched(name, revision)
    commit = HfApi().model_info(name, revision=revision, timeout=_PATIENCE).sha
    folder = _fetched(name, commit)
    # Only now that this commit is whole may the cache take it for the branch: a start without network relies on that.
    known = _cached(name, revision)
    if known is None or known.name != commit:
        _snapshot(name, revision, _DECLARATIONS)
    return folder


def _fetched(name: str, revision: str | None, *, local_files_only: bool = False) -> Path:
    """Return the folder of a revision after downloading what is missing of it; of a commit, unless all is there."""
    folder = _cached(name, revision)
    files = _listed(name, folder) if folder else None
    if folder and files and not all((folder / each).exists() for each in _DECLARATIONS if each in files):
        files = None  # an earlier release needed fewer of them
    if files is None and not local_files_only:
        folder = _snapshot(name, revision, _DECLARATIONS)
        files = _listed(name, folder)
    if folder is None or files is None:  # not there, or by a client that kept no list, or where none can be written
        return _snapshot(name, revision, HUB_FILES, local_files_only=local_files_only)
    wanted = needed(files, _modules(folder))
    _check_weights(name, files, wanted)
    missing = [file for file in wanted if not (folder / file).exists()]
    if missing:
        size = sum(files[file] for file in missing)
        if not local_files_only:
            _check_room(name, size)
            logger.info("downloading %s: %d files, %.1f MB", name, len(missing), size / 1e6)
        _snapshot(name, revision, [glob.escape(file) for file in wanted], local_files_only=local_files_only)
    for file in wanted:
        if file.endswith(".safetensors"):
            _check_sum(folder / file)
    return folder


def _modules(folder: Path) -> list[Module]:
    """Return the modules of a folder, those of routes among them; raises `CheckpointError`."""
    path = folder / _MODULES
    modules = listed_modules(path)
    if path.exists() and not has_router(modules):
        check_first(path, modules)
    return list(all_modules(folder, modules))


def _snapshot(name: str, revision: str | None, patterns: list[str], *, local_files_only: bool = False) -> Path:
    """Return the folder of a revision; its files that fit the patterns are downloaded, or must be there already."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=local_files_only)
    )


def _cached(name: str, revision: str | None) -> Path | None:
    """Return the folder of what the cache takes a revision for; None where it has no declarations of it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(name, revision, _DECLARATIONS, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def _listed(name: str, folder: Path) -> Mapping[str, int] | None:
    """Return the size of each file of a commit, by the cache's list of them; None where it has no list."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return {file.path: file.size for file in get_cached_repo_tree(name, revision=folder.name)}
    except CachedRepoTreeNotFoundError:
        return None


def _check_weights(name: str, files: Iterable[str], wanted: Iterable[str]) -> None:
    if not any(file.endswith(".safetensors") for file in wanted):
        pickled = [
            file for file in sorted(files) if file.endswith((".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf"))
        ]
        raise CheckpointError(
            f"encoder {name!r}: its repository on the Hugging Face hub has no *.safetensors file for it (there is "
            f"{', '.join(pickled[:3]) or 'no file of weights'}). Pickled weights can run code when loaded and are "
            "never read; take a revision or a repository with safetensors, or save the model with them "
            "(`model.save_pretrained(folder)`) and give that folder."
        )


def _check_room(name: str, size: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    free = shutil.disk_usage(next(each for each in (cache, *cache.parents) if each.exists())).free
    if size > free:
        raise CheckpointError(
            f"encoder {name!r}: {size / 1e6:,.1f} MB are to be downloaded and {cache} has {free / 1e6:,.1f} MB free. "
            "Make room, or set HF_HOME to a folder with room."
        )


def _check_sum(weights: Path) -> None:
    """Compare weights with the checksum that the hub gives for them, which is their file's name in the cache."""
    kept = weights.resolve()
    if _SHA256.fullmatch(kept.name) and (found := sha256(weights)) != kept.name:
        raise CheckpointError(
            f"{weights}: has sha256 {found}, and the hub gives {kept.name}: it was damaged on its way or on disk. "
            f"Delete {kept} and start again."
        )


def _explained(error: Exception, name: str, revision: str | None) -> tuple[str, str]:
    """Return what an error of the hub client comes from, and what to do about it."""
    from huggingface_hub import constants, errors, get_token, is_offline_mode

    folder = "or give a folder"
    cause = next(_causes(error))
    status = getattr(getattr(cause, "response", None), "status_code", None)
    page = f"{constants.ENDPOINT}/{name}"
    if is_offline_mode():
        return (
            f"HF_HUB_OFFLINE is set, and it is not, or not whole, in {constants.HF_HUB_CACHE}",
            f"Check the name and the network, unset HF_HUB_OFFLINE for one start, {folder}.",
        )
    match cause:
        case errors.GatedRepoError():
            account = "the account of HF_TOKEN" if get_token() else "you"
            return (
                f"it is gated, and {account} {'has' if get_token() else 'have'} no access",
                f"Accept its terms at {page}, and set HF_TOKEN to a token of the account that did, {folder}.",
            )
        case errors.RepositoryNotFoundError():
            private = "one that HF_TOKEN may read" if get_token() else "set HF_TOKEN to a token that may read it"
            return (
                f"there is no {page}, or it is private",
                f"Check the name; for a private model, {private}, {folder}.",
            )
        case errors.RevisionNotFoundError():
            return (
                f"{page} has no such revision",
                f"Set revision to a commit, tag or branch listed at {page}/commits, or leave it out for the newest.",
            )
        case errors.HFValidationError():
            return brief(cause, 200), "A Hugging Face id is 'owner/name', of letters, digits, '-', '_' and '.'."
        case OSError() if cause.errno in _UNWRITABLE:
            return (
                f"{constants.HF_HUB_CACHE} cannot be written: {cause.strerror}",
                "Make room or allow writing there, or set HF_HOME to a folder with room.",
            )
    if status == 401:
        return "the hub does not accept the token", "Set HF_TOKEN to a valid one, or unset it for a public model."
    if status == 403:
        return f"the token may not read {page}", "Set HF_TOKEN to one with that permission."
    if status == 429:
        return "the hub takes no more requests for now (429)", "Start again later, or set HF_TOKEN for more of them."
    if status is not None and status >= 500:
        return f"{constants.ENDPOINT} answers {status}", f"Start again later, {folder}."
    if isinstance(cause, OSError) and "onsistency check" in str(cause):
        return f"the download broke off: {brief(cause, 200)}", "Start again; files that are whole stay."
    return (
        f"{constants.ENDPOINT}: {brief(cause, 300)}",
        f"Check the name and the network, {folder}. Files that are whole stay for the next start.",
    )


def _causes(error: BaseException) -> Iterator[Any]:
    """Yield what an error comes from, the first cause first: the client wraps what it got from the hub."""
    if error.__cause__ is not None and not getattr(error, "response", None):
        yield from _causes(error.__cause__)
    yield error
