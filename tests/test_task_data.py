"""The data of tasks are fetched where Snakemake runs, once, and evaluations need no network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.study.jobs import jobs
from deeper_layers.study.study import Study
from helpers.config import ROOT
from helpers.small_study import changed, prepare, run, start

pytestmark = pytest.mark.slow
LOSS = {"loss": {"text": "world", "sequences": 30, "length": 64, "precision": "fp32"}}


def asked(folder: Path, **suite) -> dict:
    """The small study, un-healed, asked the questions of a data set that is a folder, as the hub's are."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    for split, count in (("test", 12), ("train", 3)):
        lines = [{"q": f"the parents of {i}", "a": i % 2} for i in range(count)]
        (folder / f"data/{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = {
        "task": "quiz",
        "dataset_path": str(folder / "data"),
        "test_split": "test",
        "fewshot_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_target": "a",
        "doc_to_choice": ["a", "the"],
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "mine/quiz.yaml").write_text(yaml.safe_dump(task))
    suites = {"quiz": {"tasks": ["quiz"], "include": "mine", "precision": "fp32"} | suite}
    return changed(suites=suites, study__suites=["quiz"], recipes={}, study__recipes=[], study__remove=[1])


def test_data_are_fetched_here_and_evaluated_without_a_network(tmp_path):
    folder = prepare(tmp_path, asked(tmp_path))
    said = run(folder, "--cores", "1", "--printshellcmds")
    fetches, evaluates = (said.index(f"{program}.py") for program in ("fetch_tasks", "evaluate"))
    assert fetches < evaluates
    assert 'HF_HUB_OFFLINE=1 python "$SCRIPTS/evaluate.py"' in said
    found = json.loads((folder / "results/tasks/quiz.json").read_text())["tasks"]
    assert found == {"quiz": {"dataset": str(folder / "data"), "name": None, "documents": 12}}
    result = json.loads((folder / "results/tiny/pruned/quiz/full.json").read_text())
    assert result["results"]["quiz"]["sample_len"] == 12
    # What was evaluated stays, whenever its data are fetched again.
    os.utime(folder / "results/tasks/quiz.json")
    assert "nothing to be done" in run(folder, "--cores", "1").lower()


def test_a_cluster_is_given_no_job_that_fetches():
    text = (ROOT / "rules/evaluate.smk").read_text()
    rule = text[text.index("rule fetch_tasks") : text.index("rule evaluate_pruned")]
    assert "localrule: True" in rule


def test_data_that_cannot_be_had_are_one_line_before_anything_is_evaluated(tmp_path):
    folder = prepare(tmp_path, asked(tmp_path))
    (folder / "data/test.jsonl").unlink()
    (folder / "data/train.jsonl").unlink()
    (folder / "data").rmdir()
    process = start(folder, "--cores", "1")
    said, _ = process.communicate()
    assert process.returncode
    assert "no data for task 'quiz'" in said and "is there a network, or a copy in the cache?" in said
    assert not (folder / "results/tiny/pruned").exists()


def test_what_lies_in_files_of_the_study_is_not_fetched(tmp_path):
    def stages(suites: dict) -> list[str]:
        config = changed(suites=suites, study__suites=list(suites))
        return [job.stage for job in jobs(Study(with_defaults(config)))]

    own = {"tasks": ["facts", "words"], "include": str(ROOT / "resources/questions"), "precision": "fp32"}
    assert "fetch_tasks" not in stages({"own": own, "loss": LOSS})
    others = {"theirs": {"tasks": ["mmlu"]}, "both": own | {"tasks": ["facts", "mmlu"]}}
    assert stages({"own": own} | others).count("fetch_tasks") == 2


def test_the_program_says_what_is_no_task(tmp_path):
    program = str(ROOT / "scripts/fetch_tasks.py")
    command = [sys.executable, program, "--tasks", "mmlu_anatomie", "--out", "x.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "lm-eval has no task 'mmlu_anatomie': did you mean" in done.stderr
