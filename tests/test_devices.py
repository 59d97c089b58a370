"""GPUs are shared among real processes: each takes one, never one that is taken. Only the cards are not real:
a machine's nvidia-smi, and names in CUDA_VISIBLE_DEVICES."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from conftest import ROOT

from deeper_layers import devices

# A program of ours that takes a card and says which. It holds it until its standard input closes or, given
# --together N, until N such jobs have begun; then it notes from when to when it held it.
JOB = """
import os, sys, time
from deeper_layers import program
from deeper_layers.errors import UserError

def check(arguments):
    if arguments.finds == "fault":
        raise UserError("it cannot be")
    return arguments.finds != "nothing"

def main(arguments):
    card, began = os.environ.get("CUDA_VISIBLE_DEVICES"), time.monotonic()
    print("has", card, flush=True)
    if not arguments.together:
        sys.stdin.read()
        return
    note("began", card)
    while len(open("began").readlines()) < arguments.together:
        if time.monotonic() > began + 60:
            sys.exit("they are not run together")
        time.sleep(0.05)
    note("held", card, began, time.monotonic())

def note(file, *words):
    with open(file, "a") as out:
        out.write(" ".join(map(str, words)) + chr(10))

p = program.parser("")
program.compute_options(p)
p.add_argument("--together", type=int)
p.add_argument("--finds", default="work")
program.run(main, p, check=check)
"""
WAITING = "waiting for one of {} GPUs: other jobs hold them"


class Job:
    """A process that claims a GPU and keeps it until it is ended."""

    def __init__(self, script, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, script, *arguments],
            cwd=script.parent,
            env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def device(self) -> str:
        return self.process.stdout.readline().removeprefix("has ").strip()

    def says(self) -> str:
        return self.process.stderr.readline().strip()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Starts jobs on a machine where no card is claimed; ``cards`` is what its nvidia-smi lists."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ["CUDA_VISIBLE_DEVICES", *devices.SCHEDULERS]:
        monkeypatch.delenv(name, raising=False)
    tool, script = tmp_path / "bin/nvidia-smi", tmp_path / "job.py"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n[ "$1" = -L ] && exec cat {tmp_path}/listing\n')
    tool.chmod(0o755)
    script.write_text(JOB)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    jobs = []

    class Machine:
        path = tmp_path

        def has(self, *cards):
            lines = [f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: {uuid})\n" for i, uuid in enumerate(cards)]
            (tmp_path / "listing").write_text("".join(lines))

        def start(self, *arguments) -> Job:
            jobs.append(Job(script, *arguments))
            return jobs[-1]

    yield Machine()
    for job in jobs:
        job.process.kill()
        job.process.communicate()


def test_eight_jobs_take_the_eight_cards_and_a_ninth_that_of_one_that_is_killed(machine):
    cards = [f"GPU-{i:04}" for i in range(8)]
    machine.has(*cards)
    jobs = [machine.start() for _ in cards]
    having = {job.device(): job for job in jobs}
    assert sorted(having) == cards
    ninth = machine.start()
    assert ninth.says() == WAITING.format(8)
    having["GPU-0005"].process.kill()  # SIGKILL: no chance to give anything back
    assert ninth.device() == "GPU-0005"


def spans(folder) -> dict[str, list[tuple[float, float]]]:
    """Card -> when it was held, from first to last."""
    found = {}
    for line in (folder / "held").read_text().splitlines():
        card, start, end = line.split()
        found.setdefault(card, []).append((float(start), float(end)))
    return {card: sorted(held) for card, held in found.items()}


def test_many_jobs_use_all_cards_and_never_share_one(machine):
    machine.has(*[f"GPU-{i}" for i in range(4)])
    jobs = [machine.start("--together", "4") for _ in range(16)]
    assert [job.process.wait() for job in jobs] == [0] * 16
    held = spans(machine.path)
    assert len(held) == 4 and sum(map(len, held.values())) == 16
    for card in held:
        assert all(end <= start for (_, end), (start, _) in pairwise(held[card]))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", ["2", "0"]),
        ("GPU-beef,MIG-cafe", ["GPU-beef", "MIG-cafe"]),
        (" 3 , 1 ", ["3", "1"]),
        ("1,-1,2", ["1"]),  # as CUDA reads it
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_respected(machine, monkeypatch, visible, expected):
    machine.has("GPU-a", "GPU-b", "GPU-c")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.visible() == expected
    if expected:
        assert [machine.start().device() for _ in expected] == expected
        assert machine.start().says() == WAITING.format(len(expected))


def test_without_a_card_a_job_says_so_and_runs_on_the_cpu(machine):
    (machine.path / "bin/nvidia-smi").write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    job = machine.start()
    assert (job.says(), job.device()) == ("no GPU found: computing on the CPU", "None")


def test_a_job_without_gpus_neither_takes_nor_sees_one(machine):
    machine.has("GPU-a")
    assert machine.start("--gpus", "0").device() == ""
    assert machine.start("--gpus", "1").device() == "GPU-a"


def test_what_is_wrong_or_done_already_is_said_without_waiting_for_a_card(machine):
    machine.has("GPU-a")
    assert machine.start().device() == "GPU-a"
    wrong, idle = machine.start("--finds", "fault"), machine.start("--finds", "nothing")
    assert (wrong.says(), wrong.process.wait()) == ("error: it cannot be", 1)
    assert idle.device() == ""


def test_cards_that_are_split_are_taken_by_their_parts(machine):
    (machine.path / "listing").write_text(
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa)\n"
        "GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbbb)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-cccc)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-dddd)\n"
        "GPU 2: NVIDIA A100-SXM4-80GB (UUID: GPU-eeee)\n"
    )
    assert devices.visible() == ["GPU-aaaa", "MIG-cccc", "MIG-dddd", "GPU-eeee"]


def test_card_0_of_one_slurm_job_is_not_that_of_another(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = []
    for job in ("101", "102"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        found.append(machine.start().device())
    assert found == ["0", "0"]
    assert machine.start().says() == WAITING.format(1)


def test_snakemake_runs_as_many_jobs_as_it_is_given_cards_each_on_its_own(machine):
    machine.has(*[f"GPU-{i}" for i in range(8)])
    (machine.path / "Snakefile").write_text(
        "rule all:\n"
        "    input: expand('{i}.done', i=range(12))\n"
        "rule job:\n"
        "    output: touch('{i}.done')\n"
        "    resources: gpu=1\n"
        f"    shell: '{sys.executable} job.py --gpus {{resources.gpu}} --together 8'\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "12", "--resources", "gpu=8"],
        cwd=machine.path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    assert "waiting for" not in run.stderr  # never a ninth at a time
    held = spans(machine.path)
    assert len(held) == 8 and sum(map(len, held.values())) == 12
    for card in held:
        assert all(end <= start for (_, end), (start, _) in pairwise(held[card]))
