"""A second opinion on throughput: wrk, with a Lua script that sends the same bodies."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.load import Load, LoadFailed

_SCRIPT = """local bodies = {{ {bodies} }}
local place = 0
request = function()
  place = place % #bodies + 1
  return wrk.format("POST", "{path}", {{["Content-Type"] = "application/json"}}, bodies[place])
end
"""


def installed() -> bool:
    """Whether there is a wrk to run."""
    return shutil.which("wrk") is not None


def rate(load: Load, folder: Path, seconds: int) -> float:
    """Texts a second by wrk for a load whose requests all bring about as many texts.

    Raises:
        LoadFailed: wrk says nothing that is known, or got an error for an answer.

    """
    script = folder / f"{load.port}.lua"
    quoted = ",\n".join(_quoted(request.body) for request in load.requests)
    script.write_text(_SCRIPT.format(bodies=quoted, path=load.requests[0].path))
    command = ["wrk", "-t1", f"-c{load.clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{load.port}"], capture_output=True, text=True)
    found = re.search(r"Requests/sec:\s*([0-9.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise LoadFailed(f"wrk: {done.stdout[-300:]}{done.stderr[-300:]}")
    texts = sum(request.texts for request in load.requests) / len(load.requests)
    return float(found[1]) * texts


def _quoted(text: str) -> str:
    """A Lua string of these bytes."""
    plain = set(range(32, 127)) - set(b'"\\')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03d}" for byte in text.encode()) + '"'
