"""What is installed: the same by pip and by conda, and in versions that the lock file names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.config import ROOT

LOCK = ROOT / "envs/lock.txt"


def pins(path) -> list[str]:
    """The lines of a file of pins that name a package."""
    return [line for line in path.read_text().splitlines() if re.match(r"\w", line)]


def normal(pin: str) -> str:
    """A pin with the package's name as indexes compare it."""
    name, version = pin.split("==")
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


@pytest.mark.parametrize("name", ["workflow", "models"])
def test_conda_and_pip_install_the_same(name):
    conda = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    lines = pins(ROOT / f"envs/{name}.txt")
    assert conda["dependencies"] == ["python=3.11", "pip", {"pip": lines}]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in lines)


def test_conda_builds_what_is_served_beside_the_models():
    conda = yaml.safe_load((ROOT / "envs/serving.yaml").read_text())
    lines = pins(ROOT / "envs/models.txt") + pins(ROOT / "envs/serving.txt")
    assert conda["dependencies"] == ["python=3.11", "pip", "cxx-compiler", {"pip": lines}]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in lines)


@pytest.mark.parametrize("name", ["workflow", "models", "serving", "dev", "cluster"])
def test_every_pin_is_in_the_lock_file(name):
    locked = set(map(normal, pins(LOCK)))
    assert {normal(pin) for pin in pins(ROOT / f"envs/{name}.txt")} <= locked, "run make lock"


def test_the_lock_file_names_versions_that_every_index_has():
    """No local version (torch's +cpu), path or address; and what a GPU needs is in it."""
    lines = pins(LOCK)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines) and len(lines) > 150
    assert any(line.startswith("nvidia-cudnn") for line in lines)


def test_what_is_installed_is_what_the_lock_file_names():
    """But for NVIDIA's libraries, which a torch for another driver brings along."""
    freeze = [sys.executable, "-m", "pip", "freeze"]
    listed = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.splitlines()
    installed = dict(normal(line.split("+")[0]).split("==") for line in listed if "==" in line)
    locked = dict(normal(line).split("==") for line in pins(LOCK))
    shared = {name for name in installed.keys() & locked.keys() if not name.startswith(("nvidia-", "cuda-"))}
    assert len(shared) > 100
    assert {name: installed[name] for name in shared} == {name: locked[name] for name in shared}


def test_the_programs_of_the_hooks_are_installed():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert len(hooks) > 5
    for hook in hooks:
        folder, name = hook["entry"].split()[0].rsplit("/", 1)
        assert folder == ".venv/bin" and (Path(sys.executable).parent / name).exists(), name


# The image


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "profiles/kubernetes/Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


@pytest.mark.parametrize("index", ["", "https://example.org/cu126"])
def test_the_image_installs_what_the_environments_name(index, tmp_path):
    """Its commands are run, with a pip and an apt-get that only say what they are asked for."""
    said, envs = tmp_path / "said", tmp_path / "envs"
    envs.mkdir()
    for name in ("pip", "apt-get", "rm"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {said}\n')
        (tmp_path / name).chmod(0o755)
    found = dict.fromkeys(word for word, _ in instructions())
    assert list(found) == ["FROM", "RUN", "COPY", "ARG"]
    for word, rest in instructions():
        if word == "FROM":
            python = yaml.safe_load((ROOT / "envs/models.yaml").read_text())["dependencies"][0]
            assert rest == f"python:{python.removeprefix('python=')}-slim"
        if word == "COPY":
            for source in rest.split()[:-1]:
                (envs / Path(source).name).write_text((ROOT / source).read_text())
        if word == "RUN":
            variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH_INDEX": index}
            subprocess.run(["sh", "-c", rest.replace("/envs/", f"{envs}/")], env=variables, check=True)
    asked = said.read_text().replace(f"{envs}/", "").splitlines()
    installed = [line for line in asked if line.startswith("pip")]
    assert any("gcc" in line for line in asked if line.startswith("apt-get install"))  # for Triton
    assert installed[-1] == "pip install --no-cache-dir -r workflow.txt -r models.txt -c lock.txt"
    of_nvidia = [line for line in pins(envs / "lock.txt") if line.startswith(("nvidia-", "cuda-"))]
    if not index:
        assert len(installed) == 1 and len(of_nvidia) > 10
        return
    torch = next(line for line in pins(ROOT / "envs/models.txt") if line.startswith("torch=="))
    assert installed[0] == f"pip install --no-cache-dir --index-url {index} {torch}" and not of_nvidia
