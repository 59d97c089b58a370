"""What programs import, how, and what they do without."""

import os
import subprocess
import sys

import pytest

from deeper_layers.data.tokens import write_tokens
from helpers.config import ROOT
from helpers.healing import counting, tiny_llama


def python(*words: object, **environment: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")} | environment
    done = subprocess.run([sys.executable, *map(str, words)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_a_healing_imports_nothing_that_it_does_without(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "cut")
    write_tokens(tmp_path / "tokens.json", counting(20, 0))
    command = f"heal.py --checkpoint {tmp_path}/cut --tokens {tmp_path}/tokens.json --steps 1 --warmup 0 "
    command += (
        f"--batch 2 --length 16 --precision fp32 --gpus 0 --out {tmp_path}/out --state {tmp_path}/state"
    )
    done = python("-X", "importtime", *f"{ROOT}/scripts/{command}".split())
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert {"torch", "peft", "transformers.modeling_layers"} <= imported
    packages = {name.split(".")[0] for name in imported if "." in name}  # an attempt is listed too
    assert packages & {"datasets", "pandas", "scipy", "sklearn", "bitsandbytes", "lm_eval"} == set()
    assert "torch.distributed.checkpoint.hf_storage" not in imported


MODULES = {
    "noting": "import gc\nwhile_executed = gc.isenabled()\nimport noting_inner as inner",
    "noting_inner": "import gc\nwhile_executed = gc.isenabled()",
    "failing": "raise ValueError('no')",
    "torch": "",
}


@pytest.fixture
def modules(tmp_path):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_no_garbage_is_looked_for_while_a_module_is_executed(modules):
    words = """if 1:
        import gc, sys
        from deeper_layers.runtime import imports
        imports.hasten()
        before = gc.get_freeze_count()
        import noting
        assert not noting.while_executed and not noting.inner.while_executed and gc.isenabled()
        assert gc.get_freeze_count() <= before  # what is frozen may still be freed
        try:
            import failing
        except ValueError:
            assert gc.isenabled()
        import torch
        assert gc.get_freeze_count() > before and gc.isenabled()
        gc.disable()
        import json.tool
        assert not gc.isenabled()
        """
    python("-c", words, PYTHONPATH=f"{modules}:{ROOT}/scripts")


def test_a_module_is_changed_once_it_is_executed(modules):
    words = """if 1:
        import noting
        from deeper_layers.runtime.imports import after_import
        changed = []
        for name in ("noting", "noting_inner", "torch"):
            after_import(name, changed.append)
        import noting, torch
        assert changed == [noting, noting.inner, torch]
        """
    python("-c", words, PYTHONPATH=f"{modules}:{ROOT}/scripts")


def test_libraries_are_told_that_there_is_one_process():
    words = """if 1:
        from deeper_layers.runtime.process import DISTRIBUTED, block_imports
        block_imports([DISTRIBUTED])
        import torch
        from transformers.utils import is_torch_distributed_available
        assert not torch.distributed.is_available() and not is_torch_distributed_available()
        """
    python("-c", words)
