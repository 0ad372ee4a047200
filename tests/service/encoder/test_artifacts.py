"""The cache of what is costly to make: whole or not there, whatever happens to it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.encoder.artifacts import Artifacts
from service.errors import CheckpointError

KEY = {"weights": "abc", "version": 1}


def writing(text: str, calls: list[str] | None = None):
    def build(folder: Path) -> None:
        if calls is not None:
            calls.append(text)
        (folder / "graph.bin").write_text(text)

    return build


def test_without_a_home_folder_they_last_as_long_as_the_process(monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", _homeless)
    cache = Artifacts(None)
    calls: list[str] = []
    kept = [cache.get("graph", KEY, writing("one", calls)) for _ in range(2)]
    assert kept[0] == kept[1] and calls == ["one"]
    assert "there is no home folder" in caplog.text and "runtime.cache" in caplog.text


def _homeless(path: Path) -> Path:
    """What pathlib does where HOME is not set and the system knows no user of this number."""
    raise RuntimeError("Could not determine home directory.")


def test_made_once_and_found_again(tmp_path):
    calls: list[str] = []
    first = Artifacts(tmp_path).get("graph", KEY, writing("one", calls))
    second = Artifacts(tmp_path).get("graph", KEY, writing("two", calls))
    assert first == second
    assert (second / "graph.bin").read_text() == "one"
    assert calls == ["one"]


@pytest.mark.parametrize("other", [{"weights": "abd", "version": 1}, {"weights": "abc", "version": 2}])
def test_another_key_is_another_folder(tmp_path, other):
    cache = Artifacts(tmp_path)
    assert cache.get("graph", KEY, writing("one")) != cache.get("graph", other, writing("two"))
    assert cache.get("graph", KEY, writing("one")) != cache.get("int8", KEY, writing("two"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "graph.bin").write_text("onf"),
        lambda folder: (folder / "graph.bin").write_text(""),
        lambda folder: (folder / "graph.bin").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text('{"files": 3}'),
    ],
)
def test_a_damaged_one_is_made_anew(tmp_path, damage):
    cache = Artifacts(tmp_path)
    damage(cache.get("graph", KEY, writing("one")))
    folder = cache.get("graph", KEY, writing("two"))
    assert (folder / "graph.bin").read_text() == "two"


def test_what_fails_leaves_nothing(tmp_path):
    def failing(folder: Path) -> None:
        (folder / "graph.bin").write_text("half")
        raise ValueError("the middle of it")

    with pytest.raises(ValueError, match="the middle of it"):
        Artifacts(tmp_path).get("graph", KEY, failing)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert (Artifacts(tmp_path).get("graph", KEY, writing("whole")) / "graph.bin").read_text() == "whole"


@pytest.mark.slow
def test_a_process_killed_while_making_leaves_nothing_that_is_used(tmp_path):
    script = (
        "import sys, time, pathlib\n"
        "from service.encoder.artifacts import Artifacts\n"
        "def build(folder):\n"
        "    (folder / 'graph.bin').write_text('half')\n"
        "    print('making', flush=True)\n"
        "    time.sleep(60)\n"
        f"Artifacts(pathlib.Path(sys.argv[1])).get('graph', {KEY!r}, build)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "making\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = Artifacts(tmp_path).get("graph", KEY, writing("whole"))
    assert (folder / "graph.bin").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def make_slowly(root: Path, made: Path) -> None:
    def build(folder: Path) -> None:
        time.sleep(0.2)
        (folder / "graph.bin").write_text("whole")
        with made.open("a") as file:
            file.write("made\n")

    assert (Artifacts(root).get("graph", KEY, build) / "graph.bin").read_text() == "whole"


@pytest.mark.slow
def test_of_processes_that_want_the_same_one_makes_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "cache", tmp_path / "made")
    processes = [context.Process(target=make_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "made\n"


def full_disk(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("a file stands where the folder should be")
    cache = Artifacts(tmp_path / "file" / "cache")
    folder = cache.get("graph", KEY, writing("mine"))
    assert (folder / "graph.bin").read_text() == "mine"
    assert "runtime.cache" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_done_without(tmp_path, caplog):
    tmp_path.chmod(0o500)
    folder = Artifacts(tmp_path).get("graph", KEY, writing("mine"))
    assert (folder / "graph.bin").read_text() == "mine"
    assert "runtime.cache" in caplog.text


def test_no_room_anywhere_is_an_error_that_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"No space left on device.*runtime\.cache"):
        Artifacts(tmp_path).get("graph", KEY, full_disk)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
