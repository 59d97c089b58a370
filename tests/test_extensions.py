"""A figure and an entry of a config that names layers, added as CONTRIBUTING.md says. Strategies are in
test_strategies.py, healing methods and repairs in test_methods.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.config import ROOT
from helpers.small_study import changed, prepare
from helpers.workflow import copy_workflow, edit, run_workflow

SPREAD = '''"""How far the losses of a study lie apart."""

from matplotlib.figure import Figure

from .select import Selection


def spread(selection: Selection) -> Figure:
    """The losses of all rows, as a strip."""
    fig = Figure()
    fig.subplots().plot(selection.table["loss"], [0] * len(selection.table), "o")
    return fig
'''
ENTRY = """FIGURES = {
    "spread": FigureEntry("spread", TABLE, "All losses, side by side.", needs=frozenset({"loss"})),
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    return copy_workflow(tmp_path_factory.mktemp("code"))


def test_an_added_figure_is_drawn_by_the_study(code, tmp_path):
    figures = code / "scripts/deeper_layers/reporting/figures"
    (figures / "spread.py").write_text(SPREAD)
    edit(figures / "registry.py", "FIGURES = {\n", ENTRY)
    prepare(tmp_path, changed(study__recipes=[], study__remove=[1]))
    planned = run_workflow(code, tmp_path, "-n", "--cores", "1", "results/figures/tiny/spread.svg")
    assert "Drawing spread of tiny" in planned
    (tmp_path / "table.csv").write_text("model,strategy,n,treatment,loss\ntiny,similarity,0,pruned,1.5\n")
    (tmp_path / "levels.csv").write_text("model,metric,level,value\n")
    program = [sys.executable, str(code / "scripts/figure.py"), "spread"]
    files = ["--table", "table.csv", "--levels", "levels.csv", "--out", "spread"]
    subprocess.run([*program, *files], cwd=tmp_path, check=True)
    assert list(tmp_path.glob("spread.*"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A Llama of five layers whose config names some of them."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=5,
        num_attention_heads=2,
        wide_layers=[1, 3, 4],
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "base"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def cut(code: Path, checkpoint: Path, out: Path) -> list[int]:
    """What a cut of layers 1 and 2 says of the wide ones."""
    program = [sys.executable, str(code / "scripts/cut.py"), "--checkpoint", str(checkpoint)]
    subprocess.run([*program, "--block", "drop_1-2", "--out", str(out)], check=True)
    return json.loads((out / "config.json").read_text())["wide_layers"]


def test_an_entry_that_names_layers_gets_an_editor(code, checkpoint, tmp_path):
    assert cut(ROOT, checkpoint, tmp_path / "before") == [1, 3, 4]  # nobody knows what it means
    config = code / "scripts/deeper_layers/checkpoints/decoder_config.py"
    edit(
        config,
        '    "ple_layer_ids": _indices,\n',
        '    "ple_layer_ids": _indices,\n    "wide_layers": _indices,\n',
    )
    assert cut(code, checkpoint, tmp_path / "after") == [1, 2]
