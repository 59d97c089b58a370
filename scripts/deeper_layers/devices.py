"""One GPU for each job, on a machine with several: Snakemake counts GPUs but assigns none.

A job claims the first card that no other job holds, by a lock that the kernel drops when the process ends,
however it ends. NVIDIA cards only.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .files import lock

# Inside a scheduler's job the numbers of the cards are the job's own, so its id is a part of each lock.
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")

_claimed: list[IO] = []  # open, and so locked, as long as this process lives


def claim(say: Callable[[str], None] = print, interval: float = 1.0) -> str | None:
    """Hold a free GPU until this process ends and let CUDA see only that one; returns its name.

    The choice is among those of CUDA_VISIBLE_DEVICES (numbers or UUIDs) if it is set, else all of the
    machine; None without any. While all are taken, wait, looking every ``interval`` seconds. Must precede
    the first use of CUDA. ``say`` tells the user what happens.
    """
    names, waiting = visible(), False
    while names:
        for name in names:
            if held := lock(lock_path(name), wait=False):
                _claimed.append(held)
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                say(f"using GPU {name}")
                return name
        if not waiting:
            say(f"waiting for one of {len(names)} GPUs: other jobs hold them")
        waiting = True
        time.sleep(interval)
    say("no GPU found: computing on the CPU")
    return None


def visible() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return machine_gpus()
    names = [name.strip() for name in named.split(",")]
    # CUDA ignores what follows the first name that is none, -1 for example.
    valid = [re.fullmatch(r"\d+|(GPU|MIG)-.+", name) is not None for name in names]
    return names[: (valid + [False]).index(False)]


def machine_gpus() -> list[str]:
    """UUIDs of the machine's GPUs, or of the instances of a card that is split (MIG). UUIDs, because CUDA
    and the driver number cards in different orders. No torch: this must precede CUDA."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[str] = []
    for kind, uuid in re.findall(r"\(UUID: ((?:GPU|MIG)-)([^)]+)\)", listing):
        if kind == "MIG-" and found and found[-1].startswith("GPU-"):
            found.pop()  # the card itself cannot be used once it is split
        found.append(kind + uuid)
    return found


def lock_path(name: str) -> Path:
    """The file whose lock stands for a GPU; one folder for each user."""
    job = next((os.environ[key] for key in SCHEDULERS if os.environ.get(key)), "machine")
    folder = Path(tempfile.gettempdir()) / f"deeper-layers-{os.getuid()}"
    return folder / f"gpu-{job}-{name}.lock".replace("/", "_")
