"""A new strategy is one module and its entry in the table, and may choose any set of layers."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.config import ROOT
from helpers.small_study import changed, prepare

EVERY_OTHER = '''"""The strategy ``every_other``: layers that lie apart."""

from .layer_set import LayerSet
from .strategy import Strategy

EVERY_OTHER = Strategy("every_other", lambda n, n_layers, evidence: LayerSet(tuple(range(1, 2 * n, 2))))
'''


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    """The workflow with one more strategy, added as CONTRIBUTING.md says."""
    folder = tmp_path_factory.mktemp("code")
    for part in ("scripts", "rules", "resources", "envs", "report"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    pruning = folder / "scripts/deeper_layers/pruning"
    (pruning / "every_other.py").write_text(EVERY_OTHER)
    table = pruning / "strategies.py"
    text = table.read_text().replace("        PUBLISHED,\n", "        PUBLISHED,\n        EVERY_OTHER,\n")
    table.write_text(text.replace("from .deepest", "from .every_other import EVERY_OTHER\nfrom .deepest"))
    assert table.read_text().count("EVERY_OTHER") == 2
    return folder


def run(code: Path, folder: Path, *arguments: str) -> str:
    """All that a run of the workflow in ``code`` says."""
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


@pytest.mark.slow
def test_scattered_layers_of_a_new_strategy_go_through_the_whole_study(code, tmp_path):
    study = changed(study__remove=[2], study__strategies=["every_other"], export=["tiny/healed/2"])
    study["recipes"]["healed"]["control"] = True
    prepare(tmp_path, study)
    run(code, tmp_path, "--cores", "1", "all", "export")
    results = tmp_path / "results"
    with open(results / "tiny/blocks.csv") as file:
        assert [row["block"] for row in csv.DictReader(file)] == ["full", "drop_1_3"]
    assert not (results / "tiny/distances.csv").exists()  # this strategy needs none
    config = json.loads((results / "tiny/checkpoints/drop_1_3/config.json").read_text())
    assert config["num_hidden_layers"] == 3
    pruned = json.loads((results / "tiny/pruned/loss/index.json").read_text())
    layers = pruned["layers"]  # of 5 and 3 layers, that before the first removed one together
    assert layers["tree"] and layers["run"] / layers["separate"] == (5 + 2) / (5 + 3)
    with open(results / "table.csv") as file:
        rows = {(row["block"], row["treatment"]): row for row in csv.DictReader(file)}
    assert set(rows) == {(block, how) for block in ("full", "drop_1_3") for how in ("pruned", "healed")}
    assert float(rows["drop_1_3", "healed"]["loss"]) < float(rows["drop_1_3", "pruned"]["loss"])
    assert (results / "figures/tiny/layer-map.svg").is_file()
    assert (results / "summary.md").is_file()  # which names no cut: this model knows nothing
    card = (results / "export/tiny-drop_1_3-healed/README.md").read_text()
    assert "without its layers 1 and 3: 2 of 5" in " ".join(card.split())
    assert "nothing to be done" in run(code, tmp_path, "--cores", "1", "all", "export").lower()


def test_a_study_asks_for_what_its_strategies_choose_by(code, tmp_path):
    """The study knows what has to be measured by its name in ``needs`` alone."""
    prepare(tmp_path, changed(study__strategies=["every_other"]))
    assert "distances" not in run(code, tmp_path, "-n", "-p", "--cores", "1", "results/tiny/blocks.csv")
    needing = shutil.copytree(code, tmp_path / "code")
    module = needing / "scripts/deeper_layers/pruning/every_other.py"
    module.write_text(EVERY_OTHER.replace("2 * n, 2))))", '2 * n, 2))), frozenset({"distances"}))'))
    planned = run(needing, tmp_path, "-n", "-p", "--cores", "1", "results/tiny/blocks.csv")
    assert "Measuring the distances of tiny" in planned
    assert "--distances results/tiny/distances.csv" in planned
