"""A stand-in for the Hugging Face hub: the part of its HTTP interface that models need, and the
reading of data sets, whose names here begin with ``datasets/``.

Which requests there are, and what they look like, is read from huggingface_hub 2.4
(``hf_api.py``, ``_commit_api.py``, ``lfs.py``, ``file_download.py``). Safetensors go the way of
large files, everything else within the commit. Each commit is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test"
FilesOfCommit = dict[str, bytes]


class StandIn(ThreadingHTTPServer):
    """Repositories, and what was asked of them.

    Attributes:
        commits: Name to its commits, the newest last: the commit's hash and all files.
        large: SHA-256 to the content of large files.
        requests: Method and path of every request.
        private: Whether each repository is private.
        cut: Paths that are sent without their last byte.
        lied: Paths whose header agrees with what is sent, cut or not.
        messages: Of all commits.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, list[tuple[str, FilesOfCommit]]] = {}
        self.large: dict[str, bytes] = {}
        self.private: dict[str, bool | None] = {}
        self.requests: list[tuple[str, str]] = []
        self.messages: list[str] = []
        self.cut: set[str] = set()
        self.lied: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def commit(self, name: str, files: FilesOfCommit) -> str:
        """Add a commit with these very files."""
        made = self.commits.setdefault(name, [])
        hashed = hashlib.sha1(f"{name}{len(made)}".encode()).hexdigest()
        made.append((hashed, dict(files)))
        return hashed

    def files(self, name: str) -> FilesOfCommit:
        """Those of the newest commit."""
        return self.commits[name][-1][1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_HEAD(self) -> None:
        self._resolve(self.path.partition("?")[0].strip("/").split("/"), body=False)

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] != "api":
            self._resolve(parts, body=True)
            return
        if parts[1] not in ("models", "datasets"):
            self._refuse(404, "")
            return
        name = "/".join(parts[2:4])
        if parts[1] == "datasets":
            name = f"datasets/{name}"
        found = self._found(name, parts[5] if len(parts) > 5 else "main")
        if found is None:
            return
        commit, files = found
        if parts[4:5] == ["tree"]:
            whole = [{"type": "file", **_told(path, one)} for path, one in files.items()]
            self._json(whole if parts[1] == "models" else _listed(files, "/".join(parts[6:])))
            return
        siblings = [{"rfilename": path, "size": len(one)} for path, one in files.items()]
        self._json({"id": name, "sha": commit, "siblings": siblings})

    def do_PUT(self) -> None:
        content = self._body()
        self.server.large[self.path.rpartition("/")[2]] = content
        self._json({})

    def do_POST(self) -> None:
        body, parts = self._body(), self.path.partition("?")[0].strip("/").split("/")
        if parts[1:] == ["validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "")
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[-1] == "batch":
            wanted = json.loads(body)["objects"]
            self._json({"transfer": "basic", "objects": [self._upload(one) for one in wanted]})
        elif parts[4] == "preupload":
            told = [
                {"path": one["path"], "shouldIgnore": False, "uploadMode": _mode(one["path"])}
                for one in json.loads(body)["files"]
            ]
            self._json({"files": told})
        else:
            self._commit("/".join(parts[2:4]), [json.loads(one) for one in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        new = name not in self.server.commits
        if new:
            self.server.private[name] = {"private": True, "public": False}.get(
                asked.get("visibility", "")
            )
            self.server.commit(name, {".gitattributes": b""})
        self._json({"url": f"{self.server.address}/{name}"}, 200 if new else 409)

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        address = f"{self.server.address}/large/{asked['oid']}"
        return {**asked, "actions": {"upload": {"href": address, "header": {}}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.files(name))
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.server.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        commit = self.server.commit(name, files)
        self._json(
            {"commitUrl": f"{self.server.address}/{name}/commit/{commit}", "commitOid": commit}
        )

    def _resolve(self, parts: list[str], *, body: bool) -> None:
        kind = f"{parts.pop(0)}/" if parts[0] == "datasets" else ""
        if len(parts) < 5 or parts[2] != "resolve":
            raise AssertionError(f"{self.command} {self.path} is not known here")
        path = "/".join(parts[4:])
        found = self._found(kind + "/".join(parts[:2]), parts[3])
        if found is None:
            return
        commit, files = found
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        whole = files[path]
        sent = whole[:-1] if path in self.server.cut else whole
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span and kind:
            sent = whole = whole[int(span[1]) : int(span[2]) + 1 if span[2] else None]
        told = len(whole) if not body and path not in self.server.lied else len(sent)
        self.send_response(206 if span and kind else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{_told(path, files[path])["oid"]}"')
        self.send_header("Content-Length", str(told))
        self.end_headers()
        if body:
            self.wfile.write(sent)

    def _found(self, name: str, revision: str) -> tuple[str, FilesOfCommit] | None:
        self.server.requests.append((self.command, self.path))
        commits = self.server.commits.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if commits is None or (self.server.private.get(name) and not known):
            self._refuse(404 if known else 401, "RepoNotFound")
            return None
        if revision == "main":
            return commits[-1]
        for commit in commits:
            if commit[0] == revision:
                return commit
        self._refuse(404, "RevisionNotFound")
        return None

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "refused")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self) -> bytes:
        self.server.requests.append((self.command, self.path))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def _listed(files: FilesOfCommit, folder: str) -> list[dict[str, Any]]:
    """What lies in a folder, without what lies in folders there."""
    start = f"{folder}/" if folder else ""
    inside = {path: one for path, one in files.items() if path.startswith(start)}
    names = {path.removeprefix(start).partition("/")[::2] for path in inside}
    folders = sorted({name for name, rest in names if rest})
    told = [{"type": "directory", "path": start + name, "oid": "0" * 40} for name in folders]
    here = [path for path in inside if "/" not in path.removeprefix(start)]
    return told + [{"type": "file", **_told(path, files[path])} for path in here]


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def _told(path: str, content: bytes) -> dict[str, Any]:
    told = {"path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if _mode(path) == "lfs":
        told["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 130,
        }
    return told
