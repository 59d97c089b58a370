"""Paths as people have them, with spaces, apostrophes and what a shell takes for its own, work everywhere."""

import ast
import glob
import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from deeper_layers.errors import UserError
from deeper_layers.study import options
from deeper_layers.study.schema import check_schema
from helpers.config import ROOT, checked, full_config
from helpers.small_study import changed, prepare, run
from helpers.workflow import copy_workflow

ODD = 'it\'s a "tést" $b; [x] *'  # the name of a folder
NUMBERS = {"{threads}", "{params.threads}", "{resources.gpu}", "{params.code}", "{params.tolerance}"}
# Made by options.command_line, or names of blocks.
NAMES = (
    "options",
    "tuning",
    "source",
    "evidence",
    "text",
    "adapter",
    "files",
    "blocks",
    "models",
    "verify",
    "metrics",
    "offline",
)
QUOTED = {f"{{params.{name}}}" for name in NAMES}


def shell_texts() -> dict[str, str]:
    """The command line of every rule, by file and number."""
    found = {}
    for path in sorted((ROOT / "rules").glob("*.smk")):
        parts = re.findall(r"^ +shell:\n((?: {8,}.*\n?)+)", path.read_text(), re.M)
        found |= {f"{path.name}-{i}": ast.literal_eval(f"({part})") for i, part in enumerate(parts)}
    return found


def unquoted(text: str) -> list[str]:
    """What a command line hands to the shell without quotes."""
    fields = [field for field in re.findall(r"\{[^{}]+\}", text) if field not in NUMBERS | QUOTED]
    wrong = [field for field in fields if not field.endswith(":q}")]
    bare = re.sub(r'"\$\((?:[^"]|"\$\([^"]*\)")*\)"|"\$\w+(?:/\w+\.py)?"', "", text)
    return wrong + re.findall(r"\$\(.*?\)|\$\w+", bare)


def test_every_command_line_quotes_what_it_is_given():
    texts = shell_texts()
    assert len(texts) >= 20
    assert {name: unquoted(text) for name, text in texts.items() if unquoted(text)} == {}
    programs = [text.split("python ")[1] for text in texts.values() if not text.startswith("printf ")]
    assert all(program.startswith('"$SCRIPTS/') for program in programs)
    # The scan sees each kind of lapse.
    assert unquoted("a {input} {input.x:q}") == ["{input}"]
    assert unquoted('a "$(dirname {output})"') == ["{output}"]
    assert unquoted("a $(dirname {output:q})") == ["$(dirname {output:q})"]
    assert unquoted("python $SCRIPTS/x.py") == ["$SCRIPTS"]


def test_no_resource_is_a_text_since_jobs_of_one_group_would_need_the_same():
    used = {name for text in shell_texts().values() for name in re.findall(r"\{resources\.(\w+)", text)}
    assert used == {"gpu"}


def test_options_reach_a_program_as_they_are_in_the_configuration():
    settings = {"source": ODD, "name": "", "include": ["~", "a b", "ü;ls"], "hash": "#", "newest": "`id`"}
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {options.command_line(settings)}"],
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split("\n")[:-1]
    assert words == ["--hash", "#", "--include", "~", "a b", "ü;ls", "--name", "", "--newest", "`id`"] + [
        "--source",
        ODD,
    ]
    assert (
        options.command_line({"rank": 2, "batch": 16}) == "--batch 16 --rank 2"
    )  # nothing that needs no quotes has them


def test_a_leading_tilde_is_the_home_folder_wherever_a_path_is_asked_for(tmp_path, monkeypatch):
    home = str(tmp_path / "home of/me")
    monkeypatch.setenv("HOME", home)
    (tmp_path / "home of/me/texts").mkdir(parents=True)
    (tmp_path / "home of/me/tasks").mkdir()
    (tmp_path / "home of/me/tasks/mine.yaml").touch()
    config = full_config()
    config["outdir"] = "~/results/"
    config["texts"]["own"] = config["texts"]["world"] | {"source": "~/texts"}
    config["distances"] |= {"stream": True, "spill": "~/spill"}
    config["suites"]["loss"]["loss"] |= {"stream": True, "spill": "~/spill"}
    config["suites"]["quiz"] = {"tasks": ["mine"], "include": "~/tasks", "precision": "fp32"}
    study = checked(config)
    assert study.out == f"{home}/results"
    for text, said in (
        (options.sample(study, "own", "train"), f"--source={home}/texts"),
        (options.distances_tuning(study), f"--spill={home}/spill"),
        (options.evaluate_tuning(study, "loss"), f"--spill={home}/spill"),
        (options.evaluate(study, "quiz", "embedded"), f"--include={home}/tasks"),
    ):
        words = shlex.split(text)
        option, path = said.split("=")
        assert words[words.index(option) + 1] == path


@pytest.mark.parametrize("place", ["outdir", "models.embedded.source", "suites.quiz.include", "recipes"])
def test_a_line_break_in_a_name_or_path_is_refused_in_one_line(place):
    config = full_config()
    *parents, key = place.split(".")
    at = config
    for parent in parents:
        at = at[parent]
    at[key] = {"heal\ned": at[key]["healed"]} if key == "recipes" else "two\nlines"
    with pytest.raises(UserError, match=r"cannot be printed, such as a line break") as error:
        check_schema(config)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{place}: ")


@pytest.mark.parametrize("outdir", ["/", "-x", "a{b}c"])
def test_an_outdir_that_snakemake_or_a_program_would_take_for_something_else_is_refused(outdir):
    with pytest.raises(UserError, match=r"^outdir: .* cannot be the folder of the results"):
        checked(full_config() | {"outdir": outdir})


@pytest.mark.slow
def test_a_whole_study_runs_from_and_in_folders_with_odd_names(tmp_path):
    """The repository, the study, the model, the tasks, the results and the spill all lie in such folders."""
    code, folder = tmp_path / ODD / "code", tmp_path / ODD / "study"
    copy_workflow(code)
    study = changed(
        outdir=f"re sults/{ODD}",
        export=["tiny/healed/1"],
        study__remove=[1],
        study__suites=["loss", "own"],
        models__tiny__source=f"../{ODD}",
        suites__own={"tasks": ["yesno"], "include": f"~/{ODD}", "limit": 4, "precision": "fp32"},
        distances={"text": "world", "samples": 20, "length": 32, "precision": "fp32"}
        | {"stream": True, "spill": f"spill {ODD}"},
    )
    prepare(folder, study)
    (folder / "tiny").rename(tmp_path / ODD / ODD)
    tasks = tmp_path / ODD / "home" / ODD
    shutil.copytree(folder / "text/tasks", tasks)
    for path in tasks.glob("*.yaml"):  # their questions lie beside them now
        task = yaml.safe_load(path.read_text())
        task["include"] = str(ROOT / "resources/tasks" / path.name)
        task["dataset_kwargs"]["data_files"]["test"] = glob.escape(str(path.with_suffix(".jsonl")))
        path.write_text(yaml.safe_dump(task))
    shutil.rmtree(folder / "text")
    output = run(
        folder,
        *("--snakefile", str(code / "Snakefile"), "--cores", "1", "all", "export"),
        HOME=str(tmp_path / ODD / "home"),
    )
    results = folder / f"re sults/{ODD}"
    assert (results / "table.csv").is_file() and (results / "figures/healing.png").is_file()
    assert list(results.glob("export/tiny-drop_*-healed/README.md"))
    log = next((results / "logs/tiny").glob("distances.log")).read_text()
    assert shlex.split(log.splitlines()[0][2:])[0] == str(code / "scripts/distances.py")
    assert "Traceback" not in output and os.listdir(tmp_path) == [ODD]
