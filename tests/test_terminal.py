"""What Snakemake says in the terminal by our handler, and how a job tells its progress and its fault."""

import os
import re
import subprocess
import sys

import pytest

from deeper_layers.runtime.progress import Progress
from helpers.config import ROOT

SNAKEFILE = f"""
import sys
sys.path.insert(0, "{ROOT}/scripts")
from deeper_layers.runtime import terminal
terminal.install(workflow, lambda stats: "More follow." if "second" in stats else "")

rule all:
    input: "second.txt", "third.txt"

rule first:
    output: "first.txt"
    log: "first.log"
    message: "Making the first file"
    shell: "python program.py good --log {{log}}; touch {{output}}"

rule second:
    input: "first.txt"
    output: "second.txt"
    log: "second.log"
    params: which=config.get("which", "good")
    message: "Making the second file"
    shell: "python program.py {{params.which}} --log {{log}}; touch {{output}}"

rule third:
    input: "first.txt"
    output: "third.txt"
    log: "third.log"
    message: "Making the third file"
    shell: "touch {{output}}"
"""
PROGRAM = f"""
import sys
sys.path.insert(0, "{ROOT}/scripts")
from deeper_layers.runtime import cli
from deeper_layers.runtime.progress import echo
from deeper_layers.errors import UserError

def main(arguments):
    print("\\n".join(f"line {{i}} of the log" for i in range(100)))
    if arguments.which == "bad":
        raise UserError("the input makes no sense: write another")
    if arguments.which == "bug":
        raise ValueError("a fault of the program")
    echo("half way")

p = cli.parser("A job.")
p.add_argument("which")
cli.run(main, p)
"""


@pytest.fixture
def snakemake(tmp_path):
    """Run Snakemake in a folder of three jobs: (status, what it says)."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "program.py").write_text(PROGRAM)

    def run(*arguments):
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
        assert "Logging error" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_job_has_a_line_for_its_start_and_one_for_its_end(snakemake, tmp_path):
    status, text = snakemake("--dry-run")
    assert status == 0 and re.search(r"total +4\n", text) and "More follow." in text
    assert "Making the second file (missing output files, input files updated by another job)\n" in text
    assert len(text.splitlines()) <= 15 and text.count("Job stats") == 1
    status, text = snakemake()
    lines = text.splitlines()
    assert status == 0 and "4 jobs to do." in lines
    for name in ("first", "second", "third"):
        first, second = (line for line in lines if f"Making the {name} file" in line)
        assert "start: " in first and re.search(r"\d/4 done: ", second)
    assert any("1/4 done: Making the first file (" in line for line in lines)
    assert "half way" in lines  # the job's own words
    assert not any(word in text for word in ("Reason", "Host:", "Select jobs", "Provided", "Using shell"))
    assert len(lines) <= 15
    # The log file has it all.
    [log] = (tmp_path / ".snakemake/log").iterdir()
    assert all(word in log.read_text() for word in ("Reason: Missing output files", "Host:", "Select jobs"))
    status, text = snakemake()
    assert status == 0 and len(text.splitlines()) <= 2 and "Nothing to be done" in text


@pytest.mark.parametrize(
    "which, fault",
    [
        ("bad", "error: the input makes no sense: write another"),
        ("bug", "ValueError: a fault of the program"),
    ],
)
def test_a_failure_is_told_once_with_the_end_of_its_log(snakemake, which, fault):
    status, text = snakemake("--config", f"which={which}", "--keep-going")
    assert status == 1 and text.count(fault) == 1
    assert "FAILED: Making the second file (rule second)\n    second.log, which ends with:\n" in text
    assert "line 99 of the log" in text and "line 50 of the log" not in text
    assert text.count("program.py bad --log") == 0 and "returned non-zero" not in text
    assert "done: Making the third file" in text


def test_quiet_and_commands_are_snakemakes(snakemake):
    _, text = snakemake("--quiet", "rules", "progress", "--config", "which=bad")
    assert "start:" not in text and "done:" not in text
    _, text = snakemake("--printshellcmds", "--config", "which=bad", "--forceall")
    assert "python program.py good --log first.log" in text
    _, text = snakemake("--verbose")
    assert "Provided cores" in text


def test_a_job_alone_tells_its_fault_where_it_is_started(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", "bad", "--log", "log"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == "error: the input makes no sense: write another\n"
    assert (tmp_path / "log").read_text().endswith(f"line 99 of the log\n{done.stderr}")


def test_the_time_left_follows_from_the_pace_and_not_from_what_came_before(monkeypatch):
    clock, said = [0.0], []
    monkeypatch.setattr("deeper_layers.runtime.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("deeper_layers.runtime.progress.echo", said.append)
    with Progress("results", 23, "block") as progress:
        clock[0] = 220  # the first block scores for all
        progress.update()
        assert said == []
        clock[0] = 240
        progress.update()
        assert said == ["results: 2/23 blocks, 9 %, 7 min 0 s left"]
        progress.update(21)
    assert said[1:] == ["results: 23/23 blocks, done in 4 min 0 s"]
    with Progress("quick", 2) as progress:
        clock[0] += 3
        progress.update(2)
    assert len(said) == 2
    with Progress("healing", 100, "step") as progress:  # resumed: 90 steps are there at once
        progress.update(90)
        clock[0] += 20
        progress.update(2)
        assert said[-1] == "healing: 92/100 steps, 92 %, 1 min 20 s left"
