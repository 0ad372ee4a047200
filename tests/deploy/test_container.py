"""The service from its wheel, as its image and a strict cluster run it: any user, no home, little to write to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import Container, can_contain
from tests.support.manifests import Image
from tests.support.servers import ROOT, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_contain(), reason="this user cannot mount file systems"),
]

USER = 1_000_660_000
"""Such as OpenShift chooses."""
TEXT = "The wheel of the mill turns when water flows over it."


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment that has the wheel, and beside it what this one has."""
    environment = tmp_path / "environment"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "--python", environment / "bin" / "python", "install", "--quiet", "--no-deps", wheel)
    return environment


@pytest.fixture
def contained(installed: Path, tmp_path: Path) -> Callable[[], Container]:
    """Makes the service in a container, over the same store each time."""
    image = Image()
    libraries = [Path(path) for path in sys.path if path.endswith("site-packages")]
    (installed / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "libraries.pth").write_text(
        "\n".join(map(str, libraries))
    )
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o775)  # of group 0, as the image makes it

    def start() -> Container:
        port = free_port()
        root = tmp_path / f"root-{port}"
        root.mkdir()
        return Container(
            [installed / "bin" / image.command[0], *image.command[1:]],
            port,
            tmp_path / "log",
            root=root,
            shown=[installed, *libraries, Path(sys.base_prefix), ROOT / "configs"],
            writable={image.env["MILLPOND_STORE__PATH"]: data, "/tmp": None},
            user=USER,
            ready="/ready",
            cwd=ROOT,
            env=image.env | {"MILLPOND_SERVER__HOST": "127.0.0.1", "MILLPOND_SERVER__PORT": str(port)},
        )

    return start


def test_it_starts_embeds_stores_and_starts_again(contained: Callable[[], Container], tmp_path: Path) -> None:
    documents = {"documents": [{"id": "mill", "text": TEXT}]}
    with contained() as server:
        process = Path(f"/proc/{server.process.pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert {*status["Uid"].split()} == {str(USER)} and {*status["Gid"].split()} == {"0"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1"
        environment = (process / "environ").read_bytes().split(b"\0")
        assert not [each for each in environment if each.startswith((b"HOME=", b"USER=", b"XDG_"))]
        (root,) = [line for line in (process / "mounts").read_text().splitlines() if line.split()[1] == "/"]
        assert "ro" in root.split()[3].split(",")
        vector = server.http.post("/embed", json={"inputs": TEXT}).raise_for_status().json()
        server.http.put("/collections/mills").raise_for_status()
        server.http.post("/collections/mills/documents", json=documents).raise_for_status()
        assert server.stop() == 0
    assert (tmp_path / "data" / "millpond.sqlite3").stat().st_uid == USER
    with contained() as server:
        found = server.http.post("/collections/mills/search", json={"query": TEXT}).raise_for_status().json()
        assert [hit["id"] for hit in found["hits"]] == ["mill"]
        assert server.http.post("/embed", json={"inputs": TEXT}).json() == vector
        assert server.stop() == 0
    assert "converting" not in server.log.read_text()  # which the first start has kept, under /data
