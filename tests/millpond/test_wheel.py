"""The built wheel in an environment that holds nothing else, outside of the source tree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Fewer packages than the service needs would fail here, files left out of the wheel as well.
PROGRAM = """
import json, sys
from pathlib import Path
from millpond import load_config, open_deployment

config = "models: {default: {encoder: bundled/all-MiniLM-L6-v2}}\\nruntime: {precision: fp32}"
Path("config.yaml").write_text(config)
deployment = open_deployment(load_config(Path("config.yaml")))
try:
    vector = deployment.models.get().encode("A man is playing a harp.")
    print(json.dumps({"vector": vector[:4].tolist(), "prefix": sys.prefix}))
finally:
    deployment.close()
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    [wheel] = tmp_path.glob("millpond-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "empty", cwd=tmp_path)
    python = tmp_path / "empty" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt"]
    run(*pip, "torch", cwd=tmp_path)
    run(*pip, f"{wheel}[bundled]", cwd=tmp_path)
    answer = json.loads(run(python, "-c", PROGRAM, cwd=tmp_path))
    assert answer["prefix"] == str(tmp_path / "empty")
    assert answer["vector"] == pytest.approx([0.0177, -0.0245, 0.0086, -0.0874], abs=1e-4)
    assert "multihead_attention" in run(tmp_path / "empty" / "bin" / "millpond", "poolings", cwd=tmp_path)
