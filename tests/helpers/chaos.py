"""A study that is killed again and again ends like one that is left alone: ``make chaos``.

The study runs twice, once in peace. The other run is ended at random moments, in each of the ways of KINDS,
and started again by the documented command until it is done. Then both have the same results, byte for byte.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.config import ROOT
from helpers.small_study import run, start

KINDS = {
    "Snakemake": "its jobs go on without it",
    "a job": "Snakemake sees it fail, and ends",
    "the machine": "Snakemake and all jobs at once, those of earlier lives too",
    "a job, asked to end": "SIGTERM, as at a time limit; all others are SIGKILL",
}
# What must be the same. Beside these are only records: of seconds, memory, dates.
RESULTS = ["table.*", "levels.csv", "*/blocks.csv", "*/distances.csv", "**/training.csv", "**/*.safetensors"]


@dataclass
class Run:
    """A run until its end, in as many lives as it took: seconds, jobs begun, kills by kind."""

    seconds: float = 0.0
    jobs: int = 0
    lives: int = 0
    kills: Counter = field(default_factory=Counter)


def study_until_done(folder: Path, kills: int, every: float, seed: int, *arguments: str) -> Run:
    """Run the study in ``folder`` until it is done. The first ``kills`` lives are ended, by each of KINDS in
    turn, after ``every`` seconds in the mean (uniform, drawn from ``seed``). AssertionError if a life fails
    that was not ended."""
    draw, found, log, began = random.Random(seed), Run(), folder / "run.log", time.monotonic()
    while True:
        found.lives += 1
        with open(log, "a") as output:
            snakemake = start(folder, *arguments, output=output)
        killed = None
        if found.kills.total() < kills:
            try:
                snakemake.wait(draw.uniform(0, 2 * every))
            except subprocess.TimeoutExpired:
                kind = list(KINDS)[found.kills.total() % len(KINDS)]
                killed = kill(snakemake, folder, kind, draw)
                found.kills.update([killed] if killed else [])
        if snakemake.wait() == 0:
            break
        assert killed, f"a run failed by itself:\n{log.read_text()[-8000:]}"
        if killed in ("Snakemake", "the machine"):
            run(folder, "--unlock")
    found.seconds = time.monotonic() - began
    found.jobs = len(re.findall(r"^\w+ [\d:]+  start: ", log.read_text(), re.MULTILINE))
    return found


def kill(snakemake: subprocess.Popen, folder: Path, kind: str, draw: random.Random) -> str | None:
    """End what ``kind`` says; for a job, one that runs now or the next one that begins. Returns ``kind``, or
    None if the run ended first."""
    while snakemake.poll() is None:
        with suppress(psutil.NoSuchProcess):
            if kind == "Snakemake":
                snakemake.kill()
                return kind
            if kind == "the machine":
                for process in psutil.process_iter(["cwd"]):
                    if process.info["cwd"] == str(folder):
                        process.kill()
                return kind
            if jobs := list(filter(is_job, psutil.Process(snakemake.pid).children(recursive=True))):
                draw.choice(jobs).send_signal(signal.SIGTERM if "asked" in kind else signal.SIGKILL)
                return kind
        time.sleep(0.02)
    return None


def is_job(process: psutil.Process) -> bool:
    """Whether a process is one of our programs."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return len(words) > 1 and Path(words[1]).parent == ROOT / "scripts"


def results(folder: Path) -> dict[str, bytes]:
    """What must not depend on kills: file below results/ -> content."""
    root = folder / "results"
    paths = {path for pattern in RESULTS for path in root.glob(pattern)}
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def compare(folder: Path, kills: int, share: float, seed: int, *arguments: str) -> tuple[Run, Run]:
    """Run copies of the study in ``folder``, in peace and killed; a life lasts ``share`` of the calm run in
    the mean. AssertionError if their results differ."""
    places = [folder.with_name(f"{folder.name}-{name}") for name in ("calm", "killed")]
    for place in places:
        shutil.copytree(folder, place, symlinks=True)
    calm = study_until_done(places[0], 0, 0, seed, *arguments)
    killed = study_until_done(places[1], kills, share * calm.seconds, seed, *arguments)
    expected, found = map(results, places)
    assert expected.keys() == found.keys() and "table.csv" in expected
    assert [name for name in expected if expected[name] != found[name]] == []
    return calm, killed


def report(calm: Run, killed: Run) -> str:
    """What was survived, and what it cost."""
    kinds = ", ".join(f"{count} of {kind}" for kind, count in killed.kills.items())
    return (
        f"{killed.kills.total()} kills survived ({kinds}): {killed.lives} lives, same results.\n"
        f"Work: {killed.jobs} jobs begun, {calm.jobs} in peace; "
        f"{killed.seconds:.0f} s, {calm.seconds:.0f} s in peace."
    )


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description="Kill the default study again and again; compare with a calm run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--kills", type=int, default=40, help="how often, until the study is done")
    p.add_argument("--share", type=float, default=0.05, help="of the calm run that a life lasts, in the mean")
    p.add_argument("--seed", type=int, default=0, help="of the moments")
    a = p.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-")) / "study"
    folder.mkdir()
    shutil.copy(ROOT / "config.yaml", folder)
    # The base model is trained once for both, since its training does not resume.
    run(folder, "results/embedded/checkpoints/full/manifest.json")
    print(report(*compare(folder, a.kills, a.share, a.seed)))
    shutil.rmtree(folder.parent)
