"""A new strategy is one module and its entry in the table, and may choose any set of layers."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from helpers.small_study import changed, prepare
from helpers.workflow import copy_workflow, edit, run_workflow

EVERY_OTHER = '''"""The strategy ``every_other``: layers that lie apart."""

from .layer_set import LayerSet
from .strategy import Strategy

EVERY_OTHER = Strategy("every_other", lambda n, n_layers, evidence: LayerSet(tuple(range(1, 2 * n, 2))))
'''


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    """The workflow with one more strategy, added as CONTRIBUTING.md says."""
    folder = copy_workflow(tmp_path_factory.mktemp("code"))
    pruning = folder / "scripts/deeper_layers/pruning"
    (pruning / "every_other.py").write_text(EVERY_OTHER)
    edit(pruning / "strategies.py", "        PUBLISHED,\n", "        PUBLISHED,\n        EVERY_OTHER,\n")
    edit(pruning / "strategies.py", "from .deepest", "from .every_other import EVERY_OTHER\nfrom .deepest")
    return folder


@pytest.mark.slow
def test_scattered_layers_of_a_new_strategy_go_through_the_whole_study(code, tmp_path):
    study = changed(study__remove=[2], study__strategies=["every_other"], export=["tiny/healed/2"])
    study["recipes"]["healed"]["control"] = True
    prepare(tmp_path, study)
    run_workflow(code, tmp_path, "--cores", "1", "all", "export")
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
    assert "nothing to be done" in run_workflow(code, tmp_path, "--cores", "1", "all", "export").lower()


def test_a_study_asks_for_what_its_strategies_choose_by(code, tmp_path):
    """The study knows what has to be measured by its name in ``needs`` alone."""
    prepare(tmp_path, changed(study__strategies=["every_other"]))
    assert "distances" not in run_workflow(
        code, tmp_path, "-n", "-p", "--cores", "1", "results/tiny/blocks.csv"
    )
    needing = shutil.copytree(code, tmp_path / "code")
    module = needing / "scripts/deeper_layers/pruning/every_other.py"
    module.write_text(EVERY_OTHER.replace("2 * n, 2))))", '2 * n, 2))), frozenset({"distances"}))'))
    planned = run_workflow(needing, tmp_path, "-n", "-p", "--cores", "1", "results/tiny/blocks.csv")
    assert "Measuring the distances of tiny" in planned
    assert "--evidence distances=results/tiny/distances.csv" in planned
