"""Fixtures, and settings that must precede the imports: one thread (tiny models are fastest so), no hub."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_home_")


def pytest_addoption(parser) -> None:
    parser.addoption("--gpu", action="store_true", help="let tests see the GPU, and run those of test_gpu.py")


def pytest_configure(config) -> None:
    """Tests compare bytes and tensors of the CPU: they do not see a card, unless asked to."""
    if not config.getoption("--gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item) -> None:
    if "gpu" in item.keywords and not item.config.getoption("--gpu"):
        pytest.skip("give --gpu, on a machine with a GPU")


def pytest_collection_modifyitems(items: list) -> None:
    """Files with long tests begin first, so that no core is idle at the end. Slurm's mostly wait."""
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: ("slurm" not in item.keywords, item.path not in slow))


@pytest.fixture
def disk(tmp_path):
    """``disk(size)``: a small disk, made or changed: disk('1m'), disk('1m,ro'); yields its folder."""
    if os.getuid() != 0:
        pytest.skip("only root mounts")
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        how = ["-o", f"remount,{options}", place] if place.is_mount() else ["-o", options, "tmpfs", place]
        done = subprocess.run(["mount", "-t", "tmpfs", *how], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mount is not allowed here: {done.stderr}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", place], check=True)
