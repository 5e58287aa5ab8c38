"""A hub on this machine that misbehaves on request: cuts, stalls, lies about contents, refuses."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``files`` maps names to bytes; names in ``large`` are listed with a sha256, the others with a git hash."""

    def __init__(self, files: dict[str, bytes], large: set[str]) -> None:
        self.files, self.large = files, large
        self.refuse: tuple[int, str] | None = None  # (status, X-Error-Code)
        self.gated = False  # everybody sees the list, only a token gets the files
        self.cuts: dict[str, int] = {}  # how many times the transfer of a file is cut half-way
        self.stalls: dict[str, int] = {}
        self.lies: dict[str, int] = {}  # how many times other bytes of the same length are sent
        self.requests: list[tuple[str, str, str | None]] = []
        self.authorizations: list[str | None] = []
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def listing(self, model: str) -> dict[str, object]:
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": self.etag(name, True)}
            if name in self.large:
                entry["lfs"] = {"sha256": self.etag(name), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {
            "id": model,
            "modelId": model,
            "sha": COMMIT,
            "siblings": siblings,
            "private": False,
            "gated": "manual" if self.gated else False,
            "tags": [],
            "downloads": 0,
        }

    def etag(self, name: str, git: bool = False) -> str:
        data = self.files[name]
        if name in self.large and not git:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.hub, urlparse(self.path).path
        hub.requests.append((self.command, path, self.headers.get("Range")))
        hub.authorizations.append(self.headers.get("Authorization"))
        refusal = hub.refuse
        if hub.gated and path.endswith("/auth-check") and not self.headers.get("Authorization"):
            refusal = (403, "GatedRepo")
        if refusal:
            status, code = refusal
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "refused")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.startswith(("/api/models/", "/api/datasets/")):
            data = json.dumps(hub.listing("/".join(path.split("/")[3:5]))).encode()
            self._head(200, len(data), {"Content-Type": "application/json"})
            self.wfile.write(data)
            return
        name = path.split(f"/resolve/{COMMIT}/")[-1]
        if name not in hub.files:
            self._head(404, 0, {"X-Error-Code": "EntryNotFound"})
            return
        self._file(name, body)

    def _file(self, name: str, body: bool) -> None:
        hub, data = self.hub, self.hub.files[name]
        headers = {"ETag": f'"{hub.etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not body:
            self._head(200, len(data), headers)
            return
        if hub.lies.get(name, 0):
            hub.lies[name] -= 1
            data = bytes(reversed(data))
        start = 0
        asked = self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        self._head(206 if asked else 200, len(rest), headers)
        half = len(rest) // 2
        if hub.cuts.get(name, 0):
            hub.cuts[name] -= 1
            self.wfile.write(rest[:half])
            self.wfile.flush()
            self.close_connection = True
            return
        if hub.stalls.get(name, 0):
            hub.stalls[name] -= 1
            self.wfile.write(rest[:half])
            self.wfile.flush()
            time.sleep(4)
            self.close_connection = True
            return
        self.wfile.write(rest)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
