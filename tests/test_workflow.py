"""The workflow as its user runs it: a small study of a local checkpoint, end to end, then what reruns when.

What reruns is read from dry runs, against the results of the one real run.
"""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.config import ROOT, replaced
from helpers.small_study import changed, prepare, run
from helpers.workflow import copy_workflow

pytestmark = pytest.mark.slow
STUDY = changed(
    study__remove=[2],
    study__strategies=["similarity", "deepest"],
    study__suites=["quiz", "loss"],
    suites__quiz={"tasks": ["knowledge"], "text": "world", "precision": "fp32"},
    recipes__healed__precision="nf4",
    recipes__healed__control=True,
)
# What a changed table makes new, whatever changed it.
AFTERWARDS = {"study", "table", "summary", "explore", "figure_model", "figure_study"}


def jobs(folder: Path, study: dict, *arguments: str, snakefile: Path = ROOT / "Snakefile") -> dict[str, int]:
    """Rule -> number of jobs that a run of ``study`` would do now."""
    (folder / "config.yaml").write_text(yaml.safe_dump(study))
    output = run(folder, "--dry-run", *arguments, "--snakefile", str(snakefile))
    stats = re.search(r"Job stats:\n.*?\n-+.*?\n(.*?)\ntotal ", output, re.S)
    found = dict(line.split() for line in stats[1].splitlines()) if stats else {}
    return {rule: int(count) for rule, count in found.items() if rule != "all"}


def study_with(**changes) -> dict:
    """STUDY with other values: ``study_with(distances__samples=30)``."""
    return replaced(STUDY, changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The whole study, run in a folder with a random Llama of five layers."""
    # As deep as its copies: the tasks of the text name those of resources/ by a relative path.
    folder = prepare(tmp_path_factory.mktemp("whole") / "study", STUDY)
    run(folder, "--cores", "2")
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the finished study, to run on; Snakemake's own records and the dates of files are kept."""
    return Path(shutil.copytree(folder, tmp_path / "study", symlinks=True))


@pytest.fixture
def code(tmp_path):
    """A copy of the workflow's code, to change."""
    return copy_workflow(tmp_path / "code")


def table(folder: Path) -> list[dict]:
    with open(folder / "results/table.csv") as file:
        return list(csv.DictReader(file))


def test_the_study_of_a_local_checkpoint_ends_with_table_and_figures(folder):
    rows = table(folder)
    assert {(r["strategy"], int(r["n"]), r["treatment"]) for r in rows} == {
        (strategy, n, treatment)
        for strategy in ("similarity", "deepest")
        for n, treatment in ((0, "pruned"), (2, "pruned"), (0, "healed"), (2, "healed"))
    }
    for row in rows:
        assert 0 <= float(row["knowledge"]) <= 1 and float(row["loss"]) > 0 and float(row["loss_stderr"]) > 0
        assert int(row["layers"]) == 5 - int(row["n"])
    assert {r["block"] for r in rows if r["strategy"] == "deepest"} == {"full", "drop_2-3"}
    for figure in ("tiny/distance-curves", "tiny/distance-map", "tiny/healing", "tiny/strategies", "loss"):
        for kind in ("svg", "png", "pdf"):
            assert (folder / f"results/figures/{figure}.{kind}").stat().st_size > 5000
    for kind in ("md", "html"):
        assert "drop_2-3" in (folder / f"results/table.{kind}").read_text()
    assert jobs(folder, STUDY) == {}


def test_healing_lowers_the_loss(folder):
    loss = {(r["strategy"], r["n"], r["treatment"]): float(r["loss"]) for r in table(folder)}
    for strategy in ("similarity", "deepest"):
        assert loss[strategy, "2", "healed"] < loss[strategy, "2", "pruned"] - 0.01


def test_every_json_says_where_it_comes_from(folder):
    base = folder / "results/tiny"
    block = next(r["block"] for r in table(folder) if r["n"] == "2")
    for path in (
        f"healed/{block}/heal.json",
        f"healed/{block}/quiz.json",
        f"healed/{block}/loss.json",
        f"pruned/quiz/{block}.json",
        "pruned/loss/full.json",
        "distances.json",
    ):
        found = json.loads((base / path).read_text())
        found = found.get("deeper_layers", found)
        assert found["versions"]["torch"] and found["seconds"] > 0 and found["device"], path
    adapter = json.loads((base / f"healed/{block}/adapter/adapter_config.json").read_text())
    named = base / f"healed/{block}/adapter" / adapter["base_model_name_or_path"]
    assert not os.path.isabs(adapter["base_model_name_or_path"])
    assert named.resolve() == (base / f"checkpoints/{block}").resolve()


def test_logs_are_complete(folder):
    log = next((folder / "results/logs/tiny/healed").glob("drop_*[0-9].log")).read_text()
    assert log.startswith("$ ") and "6/6 steps" in log


def test_touched_files_rerun_nothing(copied):
    for path in (copied / "results").rglob("*.safetensors"):
        path.resolve().touch()
    for path in [*(copied / "results/texts").rglob("*"), *(copied / "tiny").iterdir()]:
        path.touch()
    assert jobs(copied, STUDY) == {}


def test_other_weights_in_the_folder_rerun_the_model(copied):
    from safetensors.numpy import load_file, save_file

    weights = load_file(copied / "tiny/model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 2
    save_file(weights, copied / "tiny/model.safetensors", metadata={"format": "pt"})
    assert {"adopt", "distances", "blocks"} <= set(jobs(copied, STUDY))


def test_another_sample_count_measures_again_and_heals_nothing_again(copied):
    study = study_with(distances__samples=39)
    assert set(jobs(copied, study)) <= {"distances", "blocks", "figure_distances"} | AFTERWARDS
    assert {"distances", "blocks"} <= set(jobs(copied, study))
    before = (copied / "results/tiny/blocks.csv").read_text()
    run(copied, "--cores", "1", "results/tiny/blocks.csv")
    after = (copied / "results/tiny/blocks.csv").read_text()
    blocks = [[line.split(",")[:4] for line in text.splitlines()] for text in (before, after)]
    assert blocks[0] == blocks[1]
    # Distances differ, blocks do not: no cut, no healing, no evaluation.
    assert set(jobs(copied, study)) <= {"figure_distances"} | AFTERWARDS


def test_one_more_n_heals_and_evaluates_only_its_blocks(copied):
    study = study_with(study__remove=[1, 2])
    (copied / "config.yaml").write_text(yaml.safe_dump(study))
    run(copied, "--cores", "1", "results/tiny/blocks.csv")
    with open(copied / "results/tiny/blocks.csv") as file:
        new = {(r["first"], r["last"]) for r in csv.DictReader(file) if r["n"] == "1"}
    todo = jobs(copied, study)
    assert todo.pop("evaluate_pruned") == 2  # a family each of quiz and loss, which keep what they have
    assert todo.pop("cut") == todo.pop("heal") == len(new) and todo.pop("verify_cuts") == 1
    assert todo.pop("evaluate_healed") == 2
    assert set(todo) <= AFTERWARDS


def test_a_changed_recipe_heals_again_and_nothing_else(copied):
    todo = jobs(copied, study_with(recipes__healed__rank=8))
    healed = len({r["block"] for r in table(copied)})
    assert todo.pop("heal") == healed and todo.pop("evaluate_healed") == 2
    assert set(todo) <= AFTERWARDS


def test_settings_that_determine_no_result_rerun_nothing_and_still_reach_the_programs(copied):
    study = study_with(
        recipes__healed__batch_tokens=300,
        distances__batch_tokens=512,
        distances__stream=True,
        distances__spill="./spilt hidden",
        suites__loss__loss__batch=3,
        suites__quiz__batch=5,
        suites__loss__loss__stream=True,
    )
    assert jobs(copied, study) == {}
    (copied / "spilt hidden").mkdir()
    base = copied / "results/tiny"
    block = next(path.parent.name for path in (base / "healed").glob("drop_*/heal.json"))
    wanted = [base / "distances.json", base / f"healed/{block}/heal.json", base / "pruned/loss/index.json"]
    for path in wanted:
        path.unlink()
    run(copied, "--cores", "1", *(str(path.relative_to(copied)) for path in wanted))
    assert json.loads(wanted[0].read_text())["stream"]
    assert json.loads(wanted[1].read_text())["batch_tokens"] == 300
    logs = copied / "results/logs/tiny"
    distances = (logs / "distances.log").read_text().splitlines()[0]
    assert "--batch-tokens 512 --spill './spilt hidden' --stream" in distances
    assert "--batch 3 --stream" in (logs / "pruned/loss.log").read_text().splitlines()[0]


def test_fewer_healed_cuts_gather_the_table_again_and_compute_nothing(copied):
    """What the table holds is decided once, in study.json, and only a change of that reaches it."""
    held = json.loads((copied / "results/study.json").read_text())
    assert held["healed"]["healed"]["tiny"][0] == "full" and held["suites"] == ["quiz", "loss"]
    todo = jobs(copied, study_with(recipes__healed__control=False))
    assert set(todo) == AFTERWARDS | {"evaluate_healed"}
    run(copied, "--cores", "1", "results/table.csv")
    index = json.loads((copied / "results/tiny/healed/evaluated/quiz-1of1.json").read_text())
    assert len(index["blocks"]) == len({row["block"] for row in table(copied)}) - 1
    assert index["evaluated"] == []
    assert {(row["n"], row["treatment"]) for row in table(copied)} == {
        ("0", "pruned"),
        ("2", "pruned"),
        ("2", "healed"),
    }


def test_another_tolerance_says_the_summary_anew_and_gathers_nothing(copied):
    assert jobs(copied, STUDY | {"tolerance": 0.1}) == {"summary": 1}


def test_the_order_of_keys_and_unused_keys_rerun_nothing(copied):
    study = study_with(recipes__another=STUDY["recipes"]["healed"])
    study["recipes"]["healed"] = dict(reversed(study["recipes"]["healed"].items()))
    assert jobs(copied, study) == {}


def test_a_plot_colour_redraws_and_a_comment_reruns_nothing(copied, code):
    snakefile = code / "Snakefile"
    assert jobs(copied, STUDY, snakefile=snakefile) == {}  # as after a fresh checkout elsewhere
    library = code / "scripts/deeper_layers"
    remarked = ("healing/training.py", "importance/angular.py", "../evaluate.py")
    for path in (library / name for name in remarked):
        path.write_text(path.read_text() + "\n# A remark.\n")
    assert jobs(copied, STUDY, snakefile=snakefile) == {}
    style = library / "reporting/figures/style.py"
    assert "#0072B2" in style.read_text()
    style.write_text(style.read_text().replace("#0072B2", "#0072B3"))
    todo = jobs(copied, STUDY, snakefile=snakefile)
    assert todo and all(rule.startswith("figure") or rule == "explore" for rule in todo)
    (library / "runtime/files.py").write_text((library / "runtime/files.py").read_text() + "\nNEW = True\n")
    assert {"world", "adopt"} <= set(jobs(copied, STUDY, snakefile=snakefile))
    # After an update of the workflow, for whoever would rather keep what is there: once, and for good.
    assert jobs(copied, STUDY, "--rerun-triggers", "mtime", "input", snakefile=snakefile) == {}
    run(copied, "--touch", "--cores", "1", "--snakefile", str(snakefile))
    assert jobs(copied, STUDY, snakefile=snakefile) == {}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"study__models": ["tinny"]}, "error: study.models: 'tinny' is not known; did you mean 'tiny'?"),
        ({"study__strategies": ["deep"]}, "error: study.strategies: 'deep' is not known"),
        ({"study__remove": [5]}, "error: study.remove: n = 5 leaves nothing of tiny, which has 5 layers"),
        ({"study__stratgies": []}, "error: study: there is no key 'stratgies'; did you mean 'strategies'?"),
        ({"models__tiny__source": "./nowhere"}, "error: models.tiny.source: there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line_before_any_work(folder, tmp_path, changes, said):
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study_with(**changes)))
    with pytest.raises(AssertionError) as failure:
        run(tmp_path, "--cores", "1")
    assert said in str(failure.value) and "Traceback" not in str(failure.value)
    assert not (tmp_path / "results").exists()
