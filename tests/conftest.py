"""Settings that must precede the imports: one thread (tiny models are fastest so), no hub."""

import copy
import os
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_home_")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))


def full_config(path: Path = ROOT / "config.yaml") -> dict:
    """A configuration with the defaults of its schema filled in, as the Snakefile sees it."""
    import yaml
    from snakemake.utils import validate

    config = yaml.safe_load(path.read_text())
    validate(config, str(ROOT / "resources/config.schema.yaml"))
    return config


def replaced(config: dict, changes: dict) -> dict:
    """A copy of ``config`` with the values of ``changes``, {"study__remove": [3]}."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[key] = value
    return config


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
