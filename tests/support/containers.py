"""A process as a container has it: nothing can be written but what is mounted, nobody's user, no home."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.servers import Launcher

_SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/dev", "/proc", "/sys")


def can_contain() -> bool:
    """Whether this user can make file systems of its own, which takes root."""
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tried", "/mnt"], capture_output=True)
    return tried.returncode == 0


class Container(Launcher):
    """A server whose root file system is read-only, run by a user without a name, of group 0, without capabilities.

    Args:
        command: what to run.
        port: where it will listen on 127.0.0.1.
        log: the file for its output.
        root: an empty folder, where its file system is put together.
        shown: further folders of this machine that it has, where they are here; it cannot write to them.
        writable: what it can write to: folders by the path at which each is mounted; None is one in memory.
        user: the number of its user.
        ready: the path that answers 200 once it can serve.
        cwd: its working directory.
        env: all its environment variables.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        log: Path,
        *,
        root: Path,
        shown: Sequence[Path],
        writable: Mapping[str, Path | None],
        user: int,
        ready: str,
        cwd: Path,
        env: Mapping[str, str],
    ) -> None:
        steps: list[Sequence[str | Path]] = [["mount", "-t", "tmpfs", "-o", "mode=755", "root", root]]
        for place, folder in sorted(writable.items()):
            made = ["-t", "tmpfs", "-o", "mode=1777", "tmp"] if folder is None else ["--bind", str(folder)]
            steps += [["mkdir", "-p", f"{root}{place}"], ["mount", *made, f"{root}{place}"]]
        for path in map(str, (*_SYSTEM, *shown)):
            steps += [["mkdir", "-p", f"{root}{path}"], ["mount", "--rbind", path, f"{root}{path}"]]
            steps += [["mount", "-o", "remount,bind,ro", f"{root}{path}"]] if path not in ("/dev", "/proc") else []
        steps += [["mount", "-o", "remount,ro", root]]
        dropped = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        steps += [
            [
                *("exec", "chroot", str(root), "/usr/bin/setpriv", f"--reuid={user}", "--regid=0", *dropped),
                *("/usr/bin/env", "--ignore-environment", f"--chdir={cwd}"),
                *(f"{name}={value}" for name, value in env.items()),
                *command,
            ]
        ]
        script = "\n".join(shlex.join(map(str, step)) for step in steps)
        super().__init__(["unshare", "--mount", "sh", "-ec", script], port, log, ready=ready)
