"""A hub on this machine that takes uploads: the requests that huggingface_hub makes, and what it left there."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".gguf")
"""Kept as large files: announced by their sha256, sent apart, and only named in the commit."""


class UploadHub:
    """``files`` is what a commit made public; ``TOKEN`` is the only one that it knows."""

    TOKEN = "hf_of_the_test"

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.stored: dict[str, bytes] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: UploadHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    do_PUT = do_POST

    def _serve(self, body: bytes) -> None:
        path = self.path.split("?")[0]
        if not path.startswith("/storage/") and self.headers.get("Authorization") != f"Bearer {self.hub.TOKEN}":
            self._answer({"error": "Invalid credentials"}, 401)
        elif path == "/api/whoami-v2":
            self._answer({"name": "me", "type": "user"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.repos[name] = asked
            self._answer({"url": f"{self.hub.url}/{name}", "name": name})
        elif "/preupload/" in path:
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            self._answer({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]})
        elif path.startswith("/storage/"):
            assert hashlib.sha256(body).hexdigest() == path.rpartition("/")[2], (
                "what was sent is not what was announced"
            )
            self.hub.stored[path.rpartition("/")[2]] = body
            self._answer({})
        elif "/commit/" in path:
            self._commit([json.loads(line) for line in body.splitlines()])
            self._answer(
                {
                    "commitUrl": f"{self.hub.url}/{'/'.join(path.split('/')[3:5])}/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "success": True,
                }
            )
        else:
            self._answer({"error": "not found"}, 404)

    def _place(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.hub.url}/storage/{one['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.stored[value["oid"]]

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
