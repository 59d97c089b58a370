"""A Hugging Face hub of one's own on 127.0.0.1: the parts of its HTTP interface that a download uses, with
the status codes and headers of the real one. Point HF_ENDPOINT to ``url``."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Serves folders as model repositories, by id; ``with Hub({"owner/name": folder}) as hub``.

    ``gated`` ids open only to requests with ``token``. ``log`` holds (method, path) of every request.
    Each repository has one commit, on ``main``: that of ``commits``, or else one made from its id.
    """

    def __init__(
        self,
        repositories: dict[str, Path],
        gated: tuple[str, ...] = (),
        token: str = "",
        commits: dict[str, str] | None = None,
    ):
        self.repositories, self.gated, self.token = repositories, gated, token
        self.commits = commits or {}
        self.log: list[tuple[str, str]] = []

    def __enter__(self) -> "Hub":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str) -> str:
        return self.commits.get(name) or hashlib.sha1(name.encode()).hexdigest()


class Silent:
    """A server that takes a connection and hangs up: what is behind a broken proxy. ``calls`` counts."""

    def __enter__(self) -> "Silent":
        self.calls, outer = 0, self

        class Handler(BaseRequestHandler):
            def handle(self):
                outer.calls += 1

        self.server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.hub.log.append((self.command, self.path))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            return self.describe(name, rest[1] if rest[:1] == ["revision"] else "main")
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.refuse(401, "RepoNotFound", "Repository not found")

    do_HEAD = do_GET

    def known(self, name: str, revision: str) -> bool:
        if name not in self.hub.repositories:
            with_token = "Authorization" in self.headers
            self.refuse(404 if with_token else 401, "RepoNotFound", "Repository not found")
        elif revision not in ("main", self.hub.commit(name)):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return True
        return False

    def describe(self, name: str, revision: str):
        if not self.known(name, revision):
            return
        folder = self.hub.repositories[name]
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": str(p.relative_to(folder)), "size": p.stat().st_size} for p in files]
        about = {"id": name, "modelId": name, "sha": self.hub.commit(name), "siblings": siblings}
        body = json.dumps(about | {"private": False, "tags": [], "downloads": 0}).encode()
        self.answer(200, {"Content-Type": "application/json"}, body)

    def file(self, name: str, revision: str, path: str):
        if not self.known(name, revision):
            return
        sent = self.headers.get("Authorization")
        if name in self.hub.gated and sent != f"Bearer {self.hub.token}":
            said = f"Access to model {name} is restricted. You must have access to it and be authenticated."
            return self.refuse(403 if sent else 401, "GatedRepo", said)
        file = self.hub.repositories[name] / path
        if not file.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        body = file.read_bytes()
        large = path.endswith(".safetensors")
        etag = (hashlib.sha256 if large else hashlib.sha1)(body).hexdigest()
        self.answer(200, {"X-Repo-Commit": self.hub.commit(name), "ETag": f'"{etag}"'}, body)

    def refuse(self, status: int, code: str, message: str):
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self.answer(status, headers, b"")

    def answer(self, status: int, headers: dict, body: bytes):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass
