"""Models of the hub, fetched from a server with the real one's interface; and each fault in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deeper_layers.checkpoints.hub_cache import cache_folder, cached_file, is_offline
from helpers.config import ROOT
from helpers.hub_server import Hub, Silent

TOKEN, OTHER = "hf_opensTheGate", "hf_opensNothing"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A repository as model authors leave it: shards, a second copy of the weights, code, a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("repository")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="20kB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for name in ("pytorch_model.bin", "consolidated.safetensors", "original/params.json", "modeling_x.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def hub(model, tmp_path_factory):
    pickled = tmp_path_factory.mktemp("pickled")
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_text("x")
    repositories = {"us/model": model, "us/gated": model, "us/pickled": pickled}
    for name, file in (("us/escaping", "../../home/x.safetensors"), ("us/odd", 1)):
        repositories[name] = tmp_path_factory.mktemp("odd")
        (repositories[name] / "config.json").write_text("{}")
        index = {"weight_map": {"model.norm.weight": file}}
        (repositories[name] / "model.safetensors.index.json").write_text(json.dumps(index))
    repositories["us/packed"] = shutil.copytree(model, tmp_path_factory.mktemp("packed") / "packed")
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (repositories["us/packed"] / "config.json").write_text(json.dumps(config))
    with Hub(repositories, gated=("us/gated",), token=TOKEN) as hub:
        yield hub


def program(script: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a program in ``folder`` with a cache of its own there, online."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(folder / "home"), **variables}
    command = [sys.executable, str(ROOT / f"scripts/{script}.py"), "--log", "log", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)


def download(folder: Path, endpoint: str, *arguments: str, **variables: str) -> dict | str:
    """The record that download.py writes, or its one line of error."""
    variables = {"HF_ENDPOINT": endpoint, **variables}
    (folder / "download.json").unlink(missing_ok=True)
    run = program("download", folder, "--out", "download.json", *arguments, **variables)
    if run.returncode == 0:
        return json.loads((folder / "download.json").read_text())
    assert not (folder / "download.json").exists()
    (line,) = run.stderr.splitlines() if not run.stderr.startswith("Traceback") else [run.stderr]
    return line


def test_what_a_model_cannot_do_is_told_before_its_weights_are_fetched(hub, tmp_path):
    line = download(tmp_path, hub.url, "--id", "us/packed", "--model", "mine")
    assert line.startswith("error: mine: the checkpoint is quantised already (AWQ)")
    asked = {"mine": {"lengths": {"distances.length": 4096}, "precisions": {}, "streamed": []}}
    words = ["--id", "us/model", "--model", "mine", "--asked", json.dumps(asked)]
    assert not list(tmp_path.rglob("*.safetensors"))
    run = program("download", tmp_path, "--out", "d.json", *words, HF_ENDPOINT=hub.url)
    assert run.returncode == 0
    assert "warning: distances.length: 4096 tokens are more than the 2048 positions that mine" in run.stderr
    again = program("download", tmp_path, "--out", "d.json", *words, HF_ENDPOINT=hub.url)  # from the cache
    assert "warning: distances.length: 4096" in again.stderr


def test_what_is_needed_is_fetched_once_and_linked(hub, model, tmp_path):
    found = download(tmp_path, hub.url, "--id", "us/model")
    snapshot = Path(found["folder"])
    weights = sorted(p.name for p in model.glob("model-*.safetensors"))
    assert sorted(p.name for p in snapshot.iterdir()) == sorted(
        ["config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", *weights]
    )
    assert (
        found["kind"] == "hub" and found["id"] == "us/model" and found["revision"] == hub.commit("us/model")
    )
    assert found["bytes"] == sum((model / name).stat().st_size for name in weights)

    run = program("adopt", tmp_path, "--download", "download.json", "--model", "tiny", "--out", "full")
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "full/manifest.json").read_text())
    assert manifest["source"] == {k: found[k] for k in ("kind", "id", "revision")}
    assert manifest["n_layers"] == 5
    for name in weights:  # one copy on the disk: that of the cache
        assert (tmp_path / "full" / name).resolve().parent == tmp_path / "home/hub/models--us--model/blobs"

    # With the commit pinned, or without a network, the cache answers.
    asked = len(hub.log)
    assert download(tmp_path, hub.url, "--id", "us/model", "--revision", found["revision"]) == found
    assert len(hub.log) == asked
    assert download(tmp_path, "http://127.0.0.1:9", "--id", "us/model") == found
    assert download(tmp_path, hub.url, "--id", "us/model", HF_HUB_OFFLINE="1") == found

    # A shard is missing: fetched again when there is a hub, and never taken for whole when there is none.
    (snapshot / weights[1]).resolve().unlink()
    said = download(tmp_path, hub.url, "--id", "us/model", HF_HUB_OFFLINE="1")
    assert "us/model is not in the cache" in said
    assert download(tmp_path, hub.url, "--id", "us/model", "--revision", found["revision"]) == found
    assert (snapshot / weights[1]).read_bytes() == (model / weights[1]).read_bytes()
    # A shard that is truncated, likewise.
    os.truncate((snapshot / weights[0]).resolve(), 1000)
    said = download(tmp_path, hub.url, "--id", "us/model", HF_HUB_OFFLINE="1")
    assert "us/model is not in the cache" in said
    assert download(tmp_path, hub.url, "--id", "us/model", "--revision", found["revision"]) == found
    assert (snapshot / weights[0]).read_bytes() == (model / weights[0]).read_bytes()


def test_python_code_is_fetched_only_for_a_model_that_is_trusted(hub, tmp_path):
    found = download(tmp_path, hub.url, "--id", "us/model", "--trust-remote-code")
    assert [p.name for p in Path(found["folder"]).glob("*.py")] == ["modeling_x.py"]


def test_a_gated_model_says_where_the_licence_and_the_token_are(hub, tmp_path):
    said = download(tmp_path, hub.url, "--id", "us/gated")
    assert f"us/gated is gated: accept its licence at {hub.url}/us/gated" in said
    assert "`hf auth login`, or the variable HF_TOKEN" in said
    said = download(tmp_path, hub.url, "--id", "us/gated", HF_TOKEN=OTHER)
    assert "the token in use does not open it yet" in said
    found = download(tmp_path, hub.url, "--id", "us/gated", HF_TOKEN=TOKEN)
    assert found["id"] == "us/gated"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content and OTHER.encode() not in content, path


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--id", "us/nothing"], "there is no model us/nothing at http://127.0.0.1"),
        (
            ["--id", "us/model", "--revision", "v9"],
            "us/model has no revision 'v9': its commits are listed at",
        ),
        (["--id", "us/model/x"], "'us/model/x' is neither a folder here nor an id of the hub"),
        (["--id", "us/escaping"], "names '../../home/x.safetensors', which is no shard of this model"),
        (["--id", "us/odd"], "names 1, which is no shard of this model"),
        (["--id", "us/pickled"], "us/pickled has only pytorch_model.bin, no model.safetensors or"),
    ],
)
def test_what_the_hub_does_not_have_is_one_clear_line(hub, tmp_path, arguments, said):
    assert said in download(tmp_path, hub.url, *arguments)


def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path):
    with Silent() as silent:
        said = download(tmp_path, silent.url, "--id", "us/model", "--revision", "v1")
    assert f"no answer from {silent.url}. To work offline, run `hf download us/model --revision v1`" in said
    assert silent.calls <= 2  # HTTP's own second try; no more, with ever longer waits
    said = download(tmp_path, "http://127.0.0.1:9", "--id", "us/model")
    assert "no answer from http://127.0.0.1:9. To work offline" in said
    said = download(tmp_path, "http://127.0.0.1:9", "--id", "us/model", HF_HUB_OFFLINE="1")
    assert "cannot be fetched: HF_HUB_OFFLINE is set" in said


def test_a_disk_without_room_is_told_before_the_weights_are_fetched(monkeypatch, tmp_path):
    from deeper_layers.checkpoints import hub
    from deeper_layers.errors import UserError

    monkeypatch.setenv("HF_HOME", str(tmp_path / "not/yet"))
    hub._check_room("us/model", 1)
    with pytest.raises(UserError, match="us/model needs 1000000000.0 GB in the cache .*set HF_HOME"):
        hub._check_room("us/model", 10**18)


def test_the_cache_is_where_huggingface_hub_says(tmp_path):
    """Our reading of the cache, which imports nothing, against the library's own."""
    program = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from huggingface_hub import constants\n"
        "from deeper_layers.checkpoints.hub_cache import cache_folder, is_offline\n"
        "assert str(cache_folder()) == constants.HF_HUB_CACHE, constants.HF_HUB_CACHE\n"
        "assert is_offline() == constants.HF_HUB_OFFLINE"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    for variables in (
        {},
        {"HF_HOME": "~/elsewhere", "HF_HUB_OFFLINE": "1"},
        {"XDG_CACHE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
        {"HF_HUB_CACHE": "$HOME/cache", "HF_HOME": "/unused", "TRANSFORMERS_OFFLINE": "yes"},
    ):
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=clean | variables, check=True)


def test_a_cached_file_is_found_by_branch_and_by_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--us--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/config.json").write_text("{}")
    expected = folder / "snapshots/abc/config.json"
    assert cached_file("us/model", None, "config.json") == expected
    assert cached_file("us/model", "abc", "config.json") == expected
    assert cached_file("us/model", "v2", "config.json") is None
    assert cached_file("us/other", None, "config.json") is None
    assert cache_folder() == tmp_path and is_offline()  # conftest.py
