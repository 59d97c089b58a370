"""What a study will cost, before anything runs: jobs, tokens, disk, memory of the GPU and hours.

All of it is estimated from the configuration and each model's config.json. No torch, no weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.hub_cache import cache_folder
from ..reporting.text import si
from .estimates import Work
from .gpu_specs import GPUS, GpuSpec
from .jobs import Job, jobs
from .pace import paced
from .study import Study
from .token_counts import guessed


@dataclass(frozen=True)
class Cost:
    """Of some jobs, those that are ``done`` among them: tokens, bytes and hours of what is still to do."""

    jobs: int
    done: int
    tokens: float
    bytes: float
    gpu_hours: float
    cpu_hours: float

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Cost:
        todo = [job for job in jobs if not job.done]
        return cls(
            jobs=len(jobs),
            done=len(jobs) - len(todo),
            tokens=sum(job.work.tokens for job in todo if job.work),
            bytes=sum(job.disk + job.cache for job in todo),
            gpu_hours=sum(job.seconds for job in todo if job.on_gpu) / 3600,
            cpu_hours=sum(job.seconds for job in todo if not job.on_gpu) / 3600,
        )


@dataclass(frozen=True)
class Memory:
    """What the largest GPU job of a stage of a model has in the GPU's memory.

    Attributes:
        model, stage: of the job.
        precision: of the weights.
        arithmetic: (parameters, bytes of each) of the weights.
        weights: in GB.
        batch: GB beside the weights.
        needed: GB in all, with a tenth of the weights more.
        fits: whether the GPU has them.
    """

    model: str
    stage: str
    precision: str
    arithmetic: list[tuple[float, float]]
    weights: float
    batch: float
    needed: float
    fits: bool

    @classmethod
    def of(cls, model: str, stage: str, work: Work, gpu: GpuSpec) -> Memory:
        return cls(
            model=model,
            stage=stage,
            precision=work.precision,
            arithmetic=work.resident.storage(work.precision),
            weights=work.weights_mb / 1e3,
            batch=work.batch_mb / 1e3,
            needed=work.gpu_mem_mb() / 1e3,
            fits=work.gpu_mem_mb() <= gpu.memory_mb,
        )


@dataclass(frozen=True)
class Plan:
    """What a study costs.

    Attributes:
        card: the kind of GPU that it is planned for.
        models, stages: costs by model and by stage.
        total: of both, with what belongs to no model.
        memory: of the GPU, for each stage of each model that uses one.
        disks: (folders, bytes needed, bytes free) of each file system.
        unseen: hub models whose config.json is not in the cache.
        guessed: tasks of whose size nothing is known.
        cpu_flops: of a thread of this machine, as measured; None if it was not.
        timed: finished jobs, whose seconds say how long the others of their kind take.
        warnings: what does not suffice.
    """

    card: str
    models: dict[str, Cost]
    stages: dict[str, Cost]
    total: Cost
    memory: list[Memory]
    disks: list[tuple[str, float, int]]
    unseen: list[str]
    guessed: list[str]
    cpu_flops: float | None
    timed: int
    warnings: list[str]


def plan(study: Study, cpu_flops: float | None = None) -> Plan:
    """The plan of a study, for one GPU of the kind that its configuration names, and for CPUs of which a
    thread does ``cpu_flops`` operations a second, if that was measured."""
    planned, timed = paced(jobs(study, cpu_flops))
    stages = dict.fromkeys(job.stage for job in planned)
    memory, disks = _memory(study, planned), _disks(study, planned)
    return Plan(
        card=study.config["card"],
        models={model: Cost.of([job for job in planned if job.model == model]) for model in study.models},
        stages={stage: Cost.of([job for job in planned if job.stage == stage]) for stage in stages},
        total=Cost.of(planned),
        memory=memory,
        disks=disks,
        unseen=[study.model(model).id for model in study.uncached_models],
        guessed=sorted({task for suite in study.suites for task in guessed(study.config["suites"][suite])}),
        cpu_flops=cpu_flops,
        timed=timed,
        warnings=[*_too_large(study.config["card"], memory), *_too_full(disks)],
    )


def _memory(study: Study, planned: Sequence[Job]) -> list[Memory]:
    """Of each stage of each model that uses a GPU."""
    works: dict[tuple[str, str], list[Work]] = {}
    for job in planned:
        if job.model and job.work and job.work.gpu:
            works.setdefault((job.model, job.stage), []).append(job.work)
    return [
        Memory.of(model, stage, max(works[model, stage], key=Work.gpu_mem_mb), GPUS[study.config["card"]])
        for model, stage in sorted(works, key=lambda key: study.models.index(key[0]))
    ]


def _disks(study: Study, planned: Sequence[Job]) -> list[tuple[str, float, int]]:
    """Of each file system: which of our folders are on it, the bytes that these still need, and its room."""
    todo = [job for job in planned if not job.done]
    needs = {Path(study.out): sum(job.disk for job in todo), cache_folder(): sum(job.cache for job in todo)}
    disks: dict[int, tuple[str, float, int]] = {}
    for folder, needed in needs.items():
        if needed:
            absolute = folder.absolute()
            existing = next(path for path in [absolute, *absolute.parents] if path.exists())
            others, needed_by_them, _ = disks.get(existing.stat().st_dev, ("", 0, 0))
            names = f"{others} and {folder}" if others else str(folder)
            disks[existing.stat().st_dev] = (names, needed_by_them + needed, shutil.disk_usage(existing).free)
    return list(disks.values())


def _too_large(card: str, memory: Sequence[Memory]) -> Iterator[str]:
    for m in memory:
        if not m.fits:
            advice = "a card with more memory" if m.precision == "nf4" else "precision nf4, or a larger card"
            yield (
                f"{m.model}, {m.stage} in {m.precision}: {m.needed:.0f} GB do not fit the "
                f"{GPUS[card].memory_mb / 1e3:.0f} GB of {card}; take {advice}"
            )


def _too_full(disks: Sequence[tuple[str, float, int]]) -> Iterator[str]:
    for folders, needed, free in disks:
        if needed > free:
            yield (
                f"{folders}: up to {si(needed, 'B', fixed=False)} are needed and "
                f"{si(free, 'B', fixed=False)} are free; shorten study.remove, or set outdir (results) or "
                "HF_HOME (models) to a larger disk"
            )
