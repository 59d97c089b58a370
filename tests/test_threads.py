"""OpenMP's threads wait without spinning in every program, unless the user says otherwise."""

import ast
import os
import subprocess
import sys

import pytest

from helpers.config import ROOT

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_unless_the_user_wants_it(own, expected):
    words = "import deeper_layers, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(ROOT / "scripts")} | ({"OMP_WAIT_POLICY": own} if own else {})
    found = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True)
    assert found.stdout.split() == [expected, "False"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_no_program_imports_torch_before_the_library(script):
    """OpenMP reads the setting when torch is imported."""
    imported = [
        node.names[0].name if isinstance(node, ast.Import) else node.module
        for node in ast.parse(script.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    heavy = [name for name in imported if name.split(".")[0] in ("torch", "transformers", "peft", "lm_eval")]
    assert not heavy
