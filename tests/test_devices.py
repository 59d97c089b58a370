"""GPUs are shared among real processes: each takes one, never one that is taken. Only the cards are not real:
a machine's nvidia-smi or driver, and names in CUDA_VISIBLE_DEVICES."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise

import pytest

from deeper_layers.runtime import gpus as devices
from deeper_layers.runtime import nvidia as cards
from helpers.config import ROOT

# A program of ours that takes a card and says which. It holds it until its standard input closes or, given
# --together N, until N such jobs have begun; then it notes from when to when it held it.
JOB = """
import os, sys, time
from pathlib import Path
from deeper_layers.runtime import cli
from deeper_layers.runtime import nvidia as cards
from deeper_layers.errors import UserError

cards.PROC, cards.NVML = Path("proc"), "./nvml.so"  # not those of the true machine

def check(arguments):
    if arguments.finds == "fault":
        raise UserError("it cannot be")
    return arguments.finds != "nothing"

def main(arguments):
    if arguments.torch:
        from deeper_layers.models.load import device
        print(device())
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

p = cli.parser("")
cli.compute_options(p)
p.add_argument("--together", type=int)
p.add_argument("--torch", action="store_true")
p.add_argument("--finds", default="work")
cli.run(main, p, check=check)
"""
USAGE, PROCESSES = "--query-gpu=uuid,memory.used,compute_mode", "--query-compute-apps=gpu_uuid"
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
    """Starts jobs on a machine where no card is claimed; ``has`` says what its nvidia-smi lists."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ["CUDA_VISIBLE_DEVICES", *devices.SCHEDULERS]:
        monkeypatch.delenv(name, raising=False)
    tool, script = tmp_path / "bin/nvidia-smi", tmp_path / "job.py"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec cat "{tmp_path}/${{1%%=*}}=$(echo "${{1#*=}}" | tr , _)"\n')
    tool.chmod(0o755)
    monkeypatch.setattr(cards, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cards, "NVML", str(tmp_path / "nvml.so"))
    script.write_text(JOB)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    jobs = []

    class Machine:
        path = tmp_path

        def has(self, *cards):
            lines = [f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: {uuid})\n" for i, uuid in enumerate(cards)]
            self.answers("-L", "".join(lines))

        def answers(self, option, text):
            """What nvidia-smi says to an option; it fails for all others."""
            (tmp_path / f"{option.partition('=')[0]}={option.split('=')[-1].replace(',', '_')}").write_text(
                text
            )

        def uses(self, *rows):
            """(UUID, MB of its memory that are taken, compute mode) of its cards."""
            self.answers(USAGE, "".join(f"{', '.join(map(str, row))}\n" for row in rows))

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
        ("2,0", ["GPU-cafe", "GPU-aaaa"]),
        ("GPU-beef,GPU-c", ["GPU-beef", "GPU-cafe"]),
        (" 2 , 1 ", ["GPU-cafe", "GPU-beef"]),
        ("1,GPU-beef", ["GPU-beef"]),
        ("1,-1,2", ["GPU-beef"]),  # as CUDA reads it
        ("3,0", []),
        ("GPU-dddd", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_respected(machine, monkeypatch, visible, expected):
    machine.has("GPU-aaaa", "GPU-beef", "GPU-cafe")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert names() == expected
    if expected:
        assert [machine.start().device() for _ in expected] == expected
        assert machine.start().says() == WAITING.format(len(expected))


def names() -> list[str]:
    return [card.name for card in devices.visible()]


def test_where_nobody_lists_cards_those_named_are_taken_as_named(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-beef,MIG-cafe,3,none,2")
    assert names() == ["GPU-beef", "MIG-cafe", "3"]
    assert machine.start().device() == "GPU-beef"


def test_a_card_is_one_by_number_and_by_uuid(machine, monkeypatch):
    machine.has("GPU-aaaa", "GPU-beef")
    for name, job in (("1", machine.start), ("GPU-beef", machine.start)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
        says = job().says()
        assert says == ("using GPU GPU-beef" if name == "1" else WAITING.format(1))


def test_without_a_card_a_job_runs_on_the_cpu_or_ends_as_it_was_told(machine, monkeypatch):
    job, strict = machine.start(), machine.start("--gpus", "1")
    assert (job.says(), job.device()) == ("no GPU found on this machine: computing on the CPU", "")
    assert strict.says().startswith("error: a GPU is asked for, and there is no NVIDIA card on this machine")
    assert strict.process.wait() == 1
    machine.has("GPU-a")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "no NVIDIA card among CUDA_VISIBLE_DEVICES=''" in machine.start("--gpus", "1").says()


def test_cards_that_others_fill_come_last(machine):
    machine.has("GPU-a", "GPU-b", "GPU-c", "GPU-d")
    machine.uses(("GPU-a", 70_000, "Default"), ("GPU-b", 900, "Default"), ("GPU-c", 4, "Default"))
    machine.answers(PROCESSES, "GPU-b\n")
    # Of the fourth nothing is known.
    assert [machine.start().device() for _ in range(4)] == ["GPU-c", "GPU-d", "GPU-a", "GPU-b"]


def test_an_exclusive_card_that_is_busy_is_waited_for_and_a_prohibited_one_is_none(machine):
    machine.has("GPU-a", "GPU-b")
    machine.uses(("GPU-a", 9000, "Exclusive_Process"), ("GPU-b", 0, "Prohibited"))
    machine.answers(PROCESSES, "GPU-a\n")
    job = machine.start()
    assert job.says() == WAITING.format(1)
    machine.answers(PROCESSES, "")
    assert job.device() == "GPU-a"


def test_without_nvidia_smi_the_kernel_lists_the_cards(machine):
    for address, uuid in (("0000:3b:00.0", "GPU-b"), ("0000:0a:00.0", "GPU-a")):
        folder = machine.path / "proc/gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t NVIDIA A100\nGPU UUID: \t {uuid}\nDevice Minor: \t 0\n"
        )
    assert names() == ["GPU-a", "GPU-b"]
    cards.driver_version.cache_clear()
    assert cards.driver_version() is None
    cards.driver_version.cache_clear()
    (machine.path / "proc/version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version:  gcc 12.3.0\n"
    )
    assert cards.driver_version() == "535.104.05"
    cards.driver_version.cache_clear()


# A driver's library: card 0 is split in two, card 1 may not compute, card 2 is exclusive and in use.
NVML = """
#include <stdio.h>
#include <stddef.h>
typedef struct { int card, part; } *handle;
static struct { int card, part; } all[3][3] = {{{0,0},{0,1},{0,2}}, {{1,0}}, {{2,0}}};
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *out) { *out = (handle)&all[i][0]; return 0; }
int nvmlDeviceGetComputeMode(handle h, unsigned *mode) { *mode = (int[]){0, 2, 3}[h->card]; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *n) { *n = h->card == 0 ? 7 : 0; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned i, handle *out) {
  if (i > 1) return 6;
  *out = (handle)&all[h->card][i + 1];
  return 0;
}
int nvmlDeviceGetUUID(handle h, char *text, unsigned size) {
  snprintf(text, size, "%s-%d%d", h->part ? "MIG" : "GPU", h->card, h->part);
  return 0;
}
int nvmlDeviceGetMemoryInfo(handle h, unsigned long long *memory) { memory[2] = 5ull << 30; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *n, void *list) {
  if (h->card != 2) return 0;
  *n = 1;
  return 7; /* there is no room in the list */
}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_without_nvidia_smi_the_library_beneath_it_lists_the_cards(machine):
    (machine.path / "nvml.c").write_text(NVML)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "nvml.so", "nvml.c"], cwd=machine.path, check=True)
    assert cards.machine_cards() == [
        cards.Card("MIG-01", "GPU-00", 0, 5120),
        cards.Card("MIG-02", "GPU-00", 0, 5120),
        cards.Card("GPU-20", "GPU-20", 2, 5120, 1, exclusive=True),
    ]
    assert machine.start("--gpus", "1").device() == "MIG-01"


def test_a_card_that_torch_cannot_use_ends_the_job_in_one_line(machine):
    """On this machine torch sees no card; the tests hide those that are real."""
    machine.has("GPU-a")
    machine.answers("--query-gpu=driver_version", "535.104.05\n")
    for gpus in ("1", "auto"):
        job = machine.start("--gpus", gpus, "--torch")
        assert job.says() == "using GPU GPU-a"
        said = job.process.communicate(timeout=120)[1].splitlines()
        assert job.process.returncode == 1 and len(said) == 1, said
        assert said[0].startswith("error: torch cannot use GPU GPU-a: ")
        assert f"torch {version('torch')}" in said[0] and "the machine has driver 535.104.05" in said[0]


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


def test_cards_that_are_split_are_taken_by_their_parts(machine, monkeypatch):
    machine.answers(
        "-L",
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa)\n"
        "GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbbb)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-cccc)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-dddd)\n"
        "GPU 2: NVIDIA A100-SXM4-80GB (UUID: GPU-eeee)\n",
    )
    assert names() == ["GPU-aaaa", "MIG-cccc", "MIG-dddd", "GPU-eeee"]
    for named in ("1", "GPU-bbbb", "MIG-cccc,MIG-d"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert names() == ["MIG-cccc", "MIG-dddd"]


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
