"""Uploads to a hub that is a server of this process, through the real client of huggingface_hub."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.config import ROOT

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files needs. ``server.files``: path -> content."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer right":
            return self.answer({"error": "no"}, 403)
        match self.path.split("/")[2:]:
            case ["repos", "create"]:
                self.server.created.append(json.loads(body))
                self.answer({"url": "http://127.0.0.1/owner/name", "id": "1"})
            case ["validate-yaml"]:
                self.answer({"errors": [], "warnings": []})
            case [*_, "preupload", "main"]:
                files = [{"path": file["path"]} for file in json.loads(body)["files"]]
                mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                self.answer({"files": [file | mode for file in files]})
            case [*_, "commit", "main"]:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"http://{self.headers['Host']}/owner/name/commit/{COMMIT}"
                self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
            case _:
                self.answer({"error": self.path}, 404)

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.created, server.files = [], {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def push(hub, folder, token):
    command = [sys.executable, ROOT / "scripts/upload.py", "--folder", folder / "out", "--id", "owner/name"]
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HOME": str(folder / "home"), "HF_TOKEN": token}
    return subprocess.run(
        [*command, "--out", folder / "pushed.json"], env=environment, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (tmp_path / "out/config.json").write_text("{}")
    (tmp_path / "out/model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_folder_is_uploaded_as_a_private_model(hub, folder):
    done = push(hub, folder, "right")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "pushed.json").read_text()) == {"id": "owner/name", "revision": COMMIT}
    assert hub.files == {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    (created,) = hub.created
    assert created["name"] == "name" and created["organization"] == "owner"
    assert created.get("private") is True or created.get("visibility") == "private"


@pytest.mark.parametrize(
    "token, said",
    [
        ("", "no token to write to the hub: `hf auth login`"),
        ("wrong", "the token in use may not write there"),
    ],
)
def test_without_the_right_to_write_it_is_one_line(hub, folder, token, said):
    done = push(hub, folder, token)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (folder / "pushed.json").exists() and not hub.files
    assert "wrong" not in done.stderr.replace("the token in use", "")
