"""A real nginx with a configuration that is shipped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers import ROOT, Launcher, free_port

NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
NEEDS_NGINX: Final = pytest.mark.skipif(NGINX is None, reason="nginx is not installed; Debian's package has it")


def proxy(name: str, replicas: Mapping[str, int], folder: Path, ready: str = "/ready") -> Launcher:
    """Return nginx with a file of deploy/.

    Args:
        name: of the file.
        replicas: the ports of 127.0.0.1 on which those are that it names.
        folder: for what nginx writes.
        ready: the path that answers 200 once it serves.
    """
    port = free_port()
    shipped = (ROOT / "deploy" / name).read_text().replace("listen 8080", f"listen 127.0.0.1:{port}")
    for replica, own in replicas.items():
        assert f"server {replica}:8000" in shipped
        shipped = shipped.replace(f"server {replica}:8000", f"server 127.0.0.1:{own}")
    kept = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{kept}{shipped}}}\n"
    )
    assert NGINX is not None
    return Launcher([NGINX, "-e", "stderr", "-p", folder, "-c", config], port, folder / "nginx.log", ready=ready)
