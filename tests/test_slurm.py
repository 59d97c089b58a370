"""The study on a real Slurm: one node, this machine, one GPU in name only. ``pytest -m slurm``."""

import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import yaml

from helpers.config import ROOT
from helpers.small_study import changed, prepare, run, start

SLURM = ROOT / "tests/slurm"
MISSING = [tool for tool in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(tool)]
PLUGINS = [f"snakemake_executor_plugin_{name}" for name in ("slurm", "cluster_generic")]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install slurmctld slurmd slurm-client munge"
    ),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, PLUGINS)),
        reason="no executors: pip install -r envs/cluster.txt",
    ),
    pytest.mark.skipif(os.getuid() != 0, reason="starting Slurm takes root"),
]
# One small node, no accounting, and no time to lose: what a cluster would not need to be told.
HERE = ["--jobs", "4", "--max-threads", "1", "--latency-wait", "5", "--seconds-between-status-checks", "2"]
GPU_RULES = ["distances", "heal", "evaluate_pruned", "evaluate_healed", "measure_speed"]
BLOCKS = ["drop_3-3", "drop_2-3"]  # the deepest ones of five layers
TOKEN = "hf_ofTheTestOnSlurm"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running Slurm; yields the folder of its files."""
    root = tmp_path_factory.mktemp("slurm")
    subprocess.run([SLURM / "up.sh", root], check=True)
    yield root
    subprocess.run(["scancel", "-u", "root"], check=True)
    subprocess.run([SLURM / "down.sh", root], check=True)


def finished(cluster: Path) -> list[dict[str, str]]:
    """The jobs that ended so far, in Slurm's words (JobState, StartTime, Partition ...)."""
    lines = (cluster / "log/jobs").read_text().splitlines()
    return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]


def queue(*columns: str) -> list[list[str]]:
    """The jobs that Slurm has now."""
    run = subprocess.run(
        ["squeue", "-h", "-o", " ".join(columns)], text=True, capture_output=True, check=True
    )
    return [line.split() for line in run.stdout.splitlines()]


class Watch(threading.Thread):
    """Calls ``act`` twice a second, beside a run, until it returns true or the run ends."""

    def __init__(self, act):
        super().__init__(daemon=True)
        self.act, self.ended, self.done = act, threading.Event(), False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def run(self):
        while not self.done and not self.ended.wait(0.5):
            self.done = bool(self.act())


def healing(folder: Path, block: str) -> psutil.Process | None:
    """The process that heals ``block`` in ``folder``, if there is one now."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended meanwhile
            words = process.cmdline()[1:]
            if f"results/tiny/healed/{block}" in words and process.cwd() == str(folder):
                return process
    return None


def makes_steps(folder: Path, block: str) -> bool:
    """Whether the healing of ``block`` has said how far it is, which it does after ten seconds."""
    with suppress(OSError):
        return f"{block}: " in (folder / f"results/logs/tiny/healed/{block}.log").read_text()
    return False


def test_a_study_through_the_profile_survives_a_cancelled_job_and_a_time_limit(cluster, tmp_path):
    """Begun here, it goes on through the profile: two cuts, then two healings that share a card. An
    administrator cancels the first one. The other one is warned before its time is over; its
    second attempt hangs until then."""
    study = changed(study__strategies=["deepest"], models__tiny__gpus=1, recipes__healed__steps=2000)
    folder = prepare(tmp_path / "study", study)
    run(folder, "results/tiny/tokens/world-train.json", "results/tiny/blocks.csv", "--cores", "2")
    command = [
        *[f"results/tiny/healed/{block}/heal.json" for block in BLOCKS],
        *["--workflow-profile", str(ROOT / "profiles/slurm"), *HERE],
        *["--slurm-partition-config", str(ROOT / "profiles/slurm/partitions.yaml")],
        *["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"],
        *["--set-resources", "heal:runtime=10*attempt", *[f"{rule}:gpu_model=fake" for rule in GPU_RULES]],
    ]
    ended = {}  # by what happened: the job, and what it healed

    def limit(job: str, minutes: int) -> None:
        subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"], check=True)

    def disturb() -> bool:
        """What is to happen to the healing that runs now; true after the last."""
        jobs = [job for job, state, rule in queue("%i", "%T", "%k") if state == "RUNNING" and "heal" in rule]
        block, process = next(((b, p) for b in BLOCKS if (p := healing(folder, b))), (None, None))
        if not jobs or not process or jobs[0] in dict(ended.values()):
            return False
        if "CANCELLED" not in ended:
            if makes_steps(folder, block):
                subprocess.run(["scancel", jobs[0]], check=True)
                ended["CANCELLED"] = jobs[0], block
        elif block == ended["CANCELLED"][1]:
            return False  # its second attempt
        elif "FAILED" not in ended:
            if makes_steps(folder, block):
                # So that it still has steps to do when Slurm looks, twice a minute: its warning wakes it.
                process.suspend()
                limit(jobs[0], 2)
                ended["FAILED"] = jobs[0], block
        else:
            process.suspend()
            # After the first minute, so that the warning does not come before the limit itself.
            time.sleep(max(0, process.create_time() + 61 - time.time()))
            limit(jobs[0], 1)
            ended["TIMEOUT"] = jobs[0], block
        return "TIMEOUT" in ended

    with Watch(disturb):
        # The card is one in name only, so torch cannot use it: sitecustomize.py lets it compute on the CPU.
        snakemake = start(folder, *command, HF_TOKEN=TOKEN, PYTHONPATH=f"{SLURM}:{ROOT / 'scripts'}")
        output, _ = snakemake.communicate(timeout=1200)
    assert snakemake.returncode == 0, output
    jobs = {job["JobId"]: job for job in finished(cluster)}
    states = sorted((job["Partition"], job["JobState"]) for job in jobs.values())
    assert states == [
        *[("cpu", "COMPLETED")] * 2,
        *[("gpu", "CANCELLED"), ("gpu", "COMPLETED"), ("gpu", "COMPLETED"), ("gpu", "FAILED")],
        ("gpu", "TIMEOUT"),
    ]
    assert {job: jobs[job]["JobState"] for job in jobs if job in dict(ended.values())} == {
        job: state for state, (job, _) in ended.items()
    }

    # Each attempt had more time, and went on from the checkpoint that SIGTERM made.
    on_gpu = sorted((j for j in jobs.values() if j["Partition"] == "gpu"), key=lambda j: j["StartTime"])
    limits = sorted(int(j["TimeLimit"]) for j in on_gpu if j["JobState"] == "COMPLETED")
    assert limits == [20, 30]
    for block in BLOCKS:
        summary = json.loads((folder / f"results/tiny/healed/{block}/heal.json").read_text())
        assert 0 < summary["resumed_from_step"] < 2000
        assert "using GPU 0" in (folder / f"results/logs/tiny/healed/{block}.log").read_text()

    # One card: healings waited for it while another had it, and no two had it at a time.
    times = [
        [datetime.fromisoformat(j[f"{when}Time"]) for when in ("Submit", "Start", "End")] for j in on_gpu
    ]
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(times))
    assert any(submitted < end for (_, _, end), (submitted, _, _) in pairwise(times))

    for path in [*(folder / "results").rglob("*"), *(folder / ".snakemake").rglob("*")]:
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert "Nothing to be done" in run(folder, *command) and len(finished(cluster)) == len(jobs)


def test_a_preempted_job_runs_again_through_the_generic_profile(cluster, tmp_path):
    folder = prepare(tmp_path / "study")
    profile = yaml.safe_load((ROOT / "profiles/generic/config.yaml").read_text())
    defaults = profile["default-resources"] | {"partition": "'spare'", "card": "'fake:'"}
    run = start(
        folder,
        *["results/texts/world/train.jsonl", "--workflow-profile", str(ROOT / "profiles/generic"), *HERE],
        *["--cluster-generic-status-cmd", str(ROOT / "profiles/generic/status.sh")],
        *["--jobscript", str(ROOT / "profiles/generic/jobscript.sh")],
        *["--default-resources", *[f"{name}={value}" for name, value in defaults.items()]],
    )

    def preempt() -> bool:
        if ["RUNNING", "spare"] not in queue("%T", "%P"):
            return False
        urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1"]
        subprocess.run(urgent, check=True)
        return True

    with Watch(preempt) as preempted:
        output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert preempted.done
    states = [job["JobState"] for job in finished(cluster) if job["Partition"] == "spare"]
    assert states == ["PREEMPTED", "COMPLETED"]
    assert (folder / "results/texts/world/train.jsonl").exists()
