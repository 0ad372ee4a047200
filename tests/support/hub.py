"""A stand-in for the Hugging Face hub: as much of its HTTP interface as its client needs to download models."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

_LFS: Final = (".safetensors", ".bin", ".onnx")
_API: Final = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/?]+))?")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_RESOLVE: Final = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def commit_of(files: dict[str, bytes]) -> str:
    """Return the hash under which these files are a commit."""
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


@dataclass
class Repository:
    """Commits by hash, and which of them each branch and tag stands for; `token` is the one that may read it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        """Add a commit, for which the branches and tags stand from now on, `main` among them."""
        name = commit_of(files)
        self.commits[name] = files
        self.refs |= dict.fromkeys(("main", *refs), name)
        return name


Headers = Mapping[str, str]
Fault = Callable[["_Handler", bytes], None]
"""Answers a request in place of the hub, given what it would have sent."""


class Hub:
    """Serves repositories on a free port of this machine within a `with` block.

    `requests` are those about models so far, each with the `Range` header it had. `faults` are answers by the end
    of a request's path; each is given once, then the next one, then the right answer again.
    """

    def __init__(self) -> None:
        self.repositories: defaultdict[str, Repository] = defaultdict(Repository)
        self.requests: list[tuple[str, str, str | None]] = []
        self.faults: dict[str, list[Fault]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, folder: Path, *refs: str) -> str:
        """Add the files of a folder as a commit."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.repositories[name].commit(files, *refs)

    def fetched(self) -> set[str]:
        """Return the names of the files that were sent, or begun to be."""
        paths = (_RESOLVE.fullmatch(path) for method, path, _ in self.requests if method == "GET")
        return {match[3] for match in paths if match}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def send(self, status: int, body: bytes = b"", headers: Headers = _NONE, *, length: int | None = None) -> None:
        """Send a response that announces `length` bytes, by default as many as it has."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        """Send an error as the hub does."""
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api, resolve = _API.fullmatch(path), _RESOLVE.fullmatch(path)
        match = api or resolve
        if match:
            self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if match is None or match[1] not in self.hub.repositories:
            self.refuse(401, "RepoNotFound", "Repository not found")
            return
        repository = self.hub.repositories[match[1]]
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given and given != repository.token and repository.token is not None and not repository.gated:
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return
        # Who may not read a gated repository still sees that it is there.
        if repository.token not in (None, given) and not (repository.gated and api):
            self.refuse(403 if given else 401, "GatedRepo" if repository.gated else "RepoNotFound", "No access")
            return
        revision = (api[3] if api else match[2]) or "main"
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repository.commits[commit]
        if resolve:
            self._send_file(commit, path, resolve[3], files)
        elif match[2] == "tree":
            self._answer(path, json.dumps([_entry(name, files[name]) for name in sorted(files)]).encode())
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            self._answer(path, json.dumps({"id": match[1], "sha": commit, "siblings": siblings}).encode())

    def _answer(self, path: str, body: bytes, status: int = 200, headers: Headers = _NONE) -> None:
        end = next((each for each in self.hub.faults if path.endswith(each)), None)
        faults = self.hub.faults.get(end or "", [])
        if faults and (self.command == "GET" or "/resolve/" not in path):
            faults.pop(0)(self, body)
        else:
            self.send(status, body, headers)

    def _send_file(self, commit: str, path: str, name: str, files: dict[str, bytes]) -> None:
        if name not in files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        content = files[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(name, content)}"', "Accept-Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start:
            headers["Content-Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            self._answer(path, content[int(start[1]) :], 206, headers)
        else:
            self._answer(path, content, headers=headers)


def status(code: int, headers: Headers = _NONE) -> Fault:
    """Answer with an error's status."""
    return lambda handler, body: handler.send(code, b"{}", headers)


def cut(after: int) -> Fault:
    """Announce the whole body and break off after so many bytes."""

    def answer(handler: _Handler, body: bytes) -> None:
        handler.send(200, body[:after], length=len(body))
        handler.close_connection = True

    return answer


def truncated(to: int) -> Fault:
    """Send the first bytes as if they were all."""
    return lambda handler, body: handler.send(200, body[:to])


def altered(handler: _Handler, body: bytes) -> None:
    """Send another last byte."""
    handler.send(200, body[:-1] + bytes([body[-1] ^ 1]))


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git_sha(content)}
    if name.endswith(_LFS):
        entry["lfs"] = {"oid": _etag(name, content), "size": len(content), "pointerSize": 130}
    return entry


def _etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if name.endswith(_LFS) else _git_sha(content)


def _git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
