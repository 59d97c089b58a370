"""How fast a study really runs: a second's measurement of this machine, and the seconds of finished jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..layout import FULL
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
    measured = [(job, seconds) for job in jobs if (seconds := _seconds(job))]
    return [replace(job, pace=_pace(job, measured)) for job in jobs], len(measured)


def _pace(job: Job, measured: Iterable[tuple[Job, float]]) -> float:
    """Seconds that the finished jobs most like ``job`` took, for each second that was foreseen."""
    like = [(other, seconds) for other, seconds in measured if job.work and other.on_gpu == job.on_gpu]
    for closer in (
        [pair for pair in like if (pair[0].stage, pair[0].model) == (job.stage, job.model)],
        [pair for pair in like if pair[0].stage == job.stage],
        like,
    ):
        if closer:
            return sum(seconds for _, seconds in closer) / sum(other.seconds for other, _ in closer)
    return 1.0


def _seconds(job: Job) -> float | None:
    """Of a finished job that computed something: what the JSON that it wrote says, if it does."""
    if not (job.done and job.work and job.work.tokens):
        return None
    path = Path(job.output).with_suffix(".json")
    if path.stem == "index":  # of cuts that one job has evaluated, the uncut model among them
        path = path.with_stem(FULL)
    try:
        found = json.loads(path.read_text())
        return float(found.get("deeper_layers", found)["seconds"]) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
