"""The study on a real Slurm: one node, this machine, one GPU in name only. ``pytest -m slurm``."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from small_study import changed, prepare, start

SLURM = ROOT / "tests/slurm"
MISSING = [tool for tool in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(tool)]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install slurmctld slurmd slurm-client munge"
    ),
    pytest.mark.skipif(os.getuid() != 0, reason="starting Slurm takes root"),
]
# One node, few cores, no accounting, and no time to lose: what a cluster would not need to be told.
HERE = [
    *["--jobs", "4", "--max-threads", "1", "--latency-wait", "5", "--seconds-between-status-checks", "2"],
]

GPU_RULES = ["distances", "heal", "evaluate_pruned", "evaluate_healed"]


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


def cancel_running(rule: str) -> bool:
    """Cancel a job of this rule, as a user or an administrator would."""
    for job, state, comment in queue("%i", "%T", "%k"):
        if comment.startswith(f"rule_{rule}") and state == "RUNNING":
            subprocess.run(["scancel", job], check=True)
            return True
    return False


def freeze_healing(folder: Path) -> bool:
    """Stop a healing for good in the midst of its steps, so that it runs into its time limit."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if any(word.endswith("/heal.py") for word in words) and "python" in words[0]:
            log = folder / words[words.index("--log") + 1]
            if re.search(r"healing .*: \d+/\d+ steps", log.read_text()):
                os.kill(int(process.name), signal.SIGSTOP)
                return True
    return False


def test_a_study_through_the_profile_survives_a_cancelled_job_and_a_time_limit(cluster, tmp_path):
    study = changed(models__tiny__gpus=1, recipes__healed__steps=400)
    folder = prepare(tmp_path / "study", study)
    own = ["heal:runtime=attempt", "heal:slurm_extra=''"]  # minutes; and no warning before the limit
    command = [
        *["table", "--workflow-profile", str(ROOT / "profiles/slurm"), *HERE],
        *["--slurm-partition-config", str(ROOT / "profiles/slurm/partitions.yaml")],
        *["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"],
        *["--set-resources", *own, *[f"{rule}:gpu_model=fake" for rule in GPU_RULES]],
    ]
    run = start(folder, *command)
    with (
        Watch(lambda: cancel_running("distances")) as cancelled,
        Watch(lambda: freeze_healing(folder)) as frozen,
    ):
        output, _ = run.communicate(timeout=900)
    assert run.returncode == 0, output
    assert cancelled.done and frozen.done
    jobs = finished(cluster)
    states = [job["JobState"] for job in jobs]
    assert states.count("CANCELLED") == 1 and states.count("TIMEOUT") == 1
    assert set(states) == {"CANCELLED", "TIMEOUT", "COMPLETED"}

    # The second attempt had twice the time, and went on where the first one was stopped.
    limits = [int(job["TimeLimit"]) for job in jobs if int(job["TimeLimit"]) < 10]
    assert sorted(limits) == [1, 1, 2]
    healed = [json.loads(path.read_text()) for path in folder.glob("results/tiny/healed/*/heal.json")]
    assert sorted(summary["resumed_from_step"] > 0 for summary in healed) == [False, True]

    # One card: two healings waited for it at the same time, and never had it at the same time.
    on_gpu = sorted((j["StartTime"], j["EndTime"], j["SubmitTime"]) for j in jobs if j["Partition"] == "gpu")
    assert len(on_gpu) == 8  # 2 of distances, 1 un-healed evaluation, 3 of healing, 2 healed evaluations
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(on_gpu))
    assert any(submitted < end for (_, end, _), (_, _, submitted) in pairwise(on_gpu))
    for log in folder.glob("results/logs/tiny/healed/*.log"):
        assert "using GPU 0" in log.read_text()

    again = start(folder, *command)
    output, _ = again.communicate(timeout=120)
    assert "Nothing to be done" in output and len(finished(cluster)) == len(jobs)


def test_a_preempted_job_runs_again_through_the_generic_profile(cluster, tmp_path):
    folder = prepare(tmp_path / "study")
    profile = yaml.safe_load((ROOT / "profiles/generic/config.yaml").read_text())
    defaults = profile["default-resources"] | {"partition": "'spare'", "card": "'fake:'"}
    run = start(
        folder,
        *["results/texts/world/train.jsonl", "--workflow-profile", str(ROOT / "profiles/generic"), *HERE],
        *["--cluster-generic-status-cmd", str(ROOT / "profiles/generic/status.sh")],
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
