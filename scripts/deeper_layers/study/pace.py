"""How fast a study really runs: a second's measurement of this machine, and the seconds of finished jobs."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .jobs import Job

SECONDS = 1.0  # of measuring
ROWS, WIDTH, FFN = 512, 576, 1536  # of the product that is measured: a small model's feed-forward layer


def cpu_flops(seconds: float = SECONDS) -> float:
    """Floating-point operations a second of the threads that numpy is told to use, in products of fp32."""
    import numpy as np  # not while Snakemake reads the study

    rows, weights = np.ones((ROWS, WIDTH), np.float32), np.ones((WIDTH, FFN), np.float32)
    rows @ weights
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        rows @ weights
        done += 1
    return 2 * ROWS * WIDTH * FFN * done / (time.perf_counter() - began)


def paced(jobs: Sequence[Job]) -> tuple[list[Job], int]:
    """The jobs at the pace of the finished ones: of the same stage and model, else of the same stage, else of
    all on the same kind of device; and how many those are."""
    taken: dict[tuple, float] = defaultdict(float)  # by what the jobs are alike in: seconds they took
    foreseen: dict[tuple, float] = defaultdict(float)
    timed = 0
    for job in jobs:
        if seconds := _seconds(job):
            timed += 1
            for kind in _kinds(job):
                taken[kind] += seconds
                foreseen[kind] += job.seconds

    def pace(job: Job) -> float:
        kinds = _kinds(job) if job.work else ()
        return next((taken[kind] / foreseen[kind] for kind in kinds if kind in taken), 1.0)

    return [replace(job, pace=pace(job)) for job in jobs], timed


def _kinds(job: Job) -> list[tuple]:
    """What a job is like, the closest first."""
    return [(job.on_gpu, job.stage, job.model), (job.on_gpu, job.stage), (job.on_gpu,)]


def _seconds(job: Job) -> float | None:
    """Of a finished job that computed something: what the JSON that it wrote says, if it does."""
    if not (job.done and job.work and job.work.tokens):
        return None
    try:
        found = json.loads(Path(job.output).with_suffix(".json").read_text())
        return float(found["seconds"]) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None
