"""What the rules ask of a machine: functions of a job's wildcards and attempt, made from estimates.

An ``estimate`` is a method of ``Workloads``, whose arguments are named as the wildcards of the rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..pruning.layer_set import LayerSet
from .estimates import Work
from .workload import Workloads

Estimate = Callable[..., Work]

# For what handles files and text, whatever the model.
LIGHT = {
    "mem_mb": lambda wildcards, attempt: 4000 * attempt,
    "runtime": lambda wildcards, attempt: 60 * attempt,
}


def needs(estimate: Estimate) -> dict[str, Callable[..., int]]:
    """Resources of a rule; more with each attempt."""
    work = _work_of(estimate)
    return {
        "gpu": lambda wildcards: work(wildcards).gpus,
        "gpu_mem_mb": lambda wildcards, attempt: work(wildcards).gpu_mem_mb(attempt),
        "mem_mb": lambda wildcards, attempt: work(wildcards).mem_mb(attempt),
        "runtime": lambda wildcards, attempt: work(wildcards).runtime(attempt),
    }


def threads_for(estimate: Estimate) -> Callable[[Any], int]:
    """Threads of the same jobs."""
    work = _work_of(estimate)
    return lambda wildcards: work(wildcards).threads


def healing_retries(workloads: Workloads) -> int | None:
    """Those of the profile (None), unless a healing takes longer than the day that a job may: then three, as
    the profiles of clusters have, and one for each further day."""
    days = workloads.healing_days()
    return days + 2 if days > 1 else None


def _work_of(estimate: Estimate) -> Callable[[Any], Work]:
    """The work of a job, given its wildcards."""
    arguments = inspect.signature(estimate).parameters

    def work(wildcards: Any) -> Work:
        values = {name: getattr(wildcards, name) for name in arguments}
        if "block" in values:
            values["block"] = LayerSet.parse(values["block"])
        return estimate(**values)

    return work
