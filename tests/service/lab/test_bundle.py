"""What is served is what the sources in `lab/` give."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import ROOT

FILES = ("lab.html", "lab.js", "lab.css")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here: apt-get install npm")
def test_the_bundle_is_what_the_sources_give(tmp_path: Path) -> None:
    sources = tmp_path / "lab"
    shutil.copytree(ROOT / "lab", sources, ignore=shutil.ignore_patterns("node_modules"))
    for command in (["npm", "ci", "--ignore-scripts"], ["npm", "run", "types"], ["node", "build.mjs", "built"]):
        done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in FILES:
        served, built = (ROOT / "service" / "lab" / name), (sources / "built" / name)
        assert served.read_bytes() == built.read_bytes(), f"{name} is not what lab/src gives; run `make lab`"
