"""A copy of the workflow, to be extended as CONTRIBUTING.md says, and runs of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.config import ROOT

PARTS = ("scripts", "rules", "resources", "envs", "report")


def copy_workflow(folder: Path) -> Path:
    """Copy all that runs into ``folder``, which is returned."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that a file must have."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def run_workflow(code: Path, folder: Path, *arguments: str) -> str:
    """All that a run of the workflow in ``code`` says, in ``folder``. Fails if it does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(code / "Snakefile"), *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
