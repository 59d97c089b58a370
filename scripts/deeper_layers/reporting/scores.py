"""What an evaluation's JSON says: each metric with its standard error, under a tidy name, and the levels
that tell what a score means (chance; the majority class). No pandas, no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import UserError
from ..runtime.files import read_json

# The metric that stands for a task when lm-eval gives several; the others are kept beside it.
PRIMARY = ["acc", "exact_match", "acc_norm"]
MACRO = "_macro"  # ends the name of a mean over the tasks of a group

# What the configuration of these lm-eval tasks does not tell (BoolQ: 2,033 of 3,270 answers are yes).
KNOWN_LEVELS = {"hellaswag": {"chance": 0.25}, "boolq": {"majority": 2033 / 3270}}


def read_result(path: Path) -> dict:
    """An evaluation's JSON. Raises UserError when it is missing or is none."""
    existing(path, "evaluate.py")
    try:
        result = read_json(path)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and evaluate again") from None
    if not isinstance(result, dict) or not isinstance(result.get("results"), dict):
        raise UserError(f"{path} has no `results`, so it is no evaluation: delete it and evaluate again")
    return result


def existing(path: Path, program: str) -> Path:
    """``path``. Raises UserError that names the program which makes it, when it is missing."""
    if not path.exists():
        raise UserError(f"{path} is missing: make it with scripts/{program}, or let snakemake do it")
    return path


def suite_scores(result: dict, metric: str | None = None) -> dict[str, tuple[float, float]]:
    """{name: (value, standard error)}; the standard error is NaN where lm-eval has none ("N/A").

    A task gives its name to its primary metric (``boolq``) and puts it before the others
    (``hellaswag_norm``, ``gsm8k_flexible_extract``); a metric without a filter, as in our own loss files,
    keeps its own name (``normalised_loss``). Of a group that has a mean, that is kept, as a rule over all
    questions, and its ``_macro``: the mean over its tasks, each of which counts the same (``mmlu_macro``).
    ``metric`` makes that one the primary metric; UserError for a task without it.
    """
    scores = {}
    for task in _reported_tasks(result):
        measured = result["results"][task]
        for key, name in _metric_names(task, measured, metric).items():
            scores[name] = _value(measured, key)
            parts = _parts(result, task)
            if name == task and len(parts) > 1 and all(key in part for part in parts):
                values, errors = zip(*(_value(part, key) for part in parts), strict=True)
                scores[f"{name}{MACRO}"] = sum(values) / len(parts), math.hypot(*errors) / len(parts)
    return scores


def _value(measured: dict, key: str) -> tuple[float, float]:
    stderr = measured[_stderr_key(key)]
    return float(measured[key]), float(stderr) if stderr != "N/A" else math.nan


def _parts(result: dict, group: str) -> list[dict]:
    """What was measured of the tasks of a group, those of groups in it too; none for a task."""
    below = result.get("group_subtasks", {})
    return [
        found
        for name in below.get(group, [])
        for found in (_parts(result, name) if below.get(name) else [result["results"].get(name, {})])
    ]


def suite_levels(result: dict, metric: str | None = None) -> Iterator[tuple[str, str, float]]:
    """(name, level, value) for every level that an evaluation tells.

    A task's own ``metadata`` may state ``chance`` and ``majority``; else they are what the evaluation found
    in the documents; else chance follows from a fixed list of choices, and is 0 where text is generated. The
    loss that knows nothing is ln V nats: 1 when normalised; its perplexity is V.
    """
    for task in _reported_tasks(result):
        measured = result["results"][task]
        if "normalised_loss" in measured:
            yield "loss", "chance", measured["loss"] / measured["normalised_loss"]
            yield "normalised_loss", "chance", 1.0
            continue
        if "perplexity" in measured and "vocabulary" in measured:
            yield "perplexity", "chance", float(measured["vocabulary"])
            continue
        for level in ("chance", "majority"):
            value = _level(result, task, level)
            if value is not None:
                names = list(_metric_names(task, measured, metric).values())
                names += [f"{task}{MACRO}"] if task in names and len(_parts(result, task)) > 1 else []
                yield from ((name, level, value) for name in names)


def _reported_tasks(result: dict) -> list[str]:
    """The tasks of an evaluation without those that only contribute to a group's mean."""
    results, groups = result["results"], result.get("group_subtasks", {})
    has_mean = [group for group in groups if _metric_names(group, results.get(group, {}))]
    inside = {task for group in has_mean for task in groups[group]}
    return [task for task in results if task not in inside and _metric_names(task, results[task])]


def _metric_names(task: str, measured: dict, metric: str | None = None) -> dict[str, str]:
    """{key in the JSON: tidy name} of a task's metrics: the keys that have a standard error beside them."""
    keys = [key for key in measured if _stderr_key(key) in measured]
    if metric and keys and metric not in (known := [key.partition(",")[0] for key in keys]):
        raise UserError(f"task {task!r} has no metric {metric!r}; it has {', '.join(known)}")
    rank = partial(_rank, metric=metric)
    return {key: _tidy(task, key, min(keys, key=rank)) for key in keys}


def _tidy(task: str, key: str, primary: str) -> str:
    """The name of metric ``key`` (``METRIC`` or ``METRIC,FILTER``) of a task, given its primary one."""
    metric, comma, kept = key.partition(",")
    if not comma:
        return metric
    main, _, main_kept = primary.partition(",")
    parts = [task]
    if metric != main:
        parts.append(metric.removeprefix(f"{main}_"))
    if kept != main_kept:
        parts.append(kept.replace("-", "_"))
    return "_".join(parts)


def _rank(key: str, metric: str | None) -> int:
    name, order = key.partition(",")[0], [metric, *PRIMARY]
    return order.index(name) if name in order else len(order)


def _stderr_key(key: str) -> str:
    metric, comma, kept = key.partition(",")
    return f"{metric}_stderr{comma}{kept}"


def _level(result: dict, task: str, level: str) -> float | None:
    """A task's level, or a group's: the mean over its tasks. None where it cannot be told."""
    subtasks = result.get("group_subtasks", {}).get(task)
    if subtasks:
        inside = [_level(result, subtask, level) for subtask in subtasks]
        return None if None in inside else sum(inside) / len(inside)
    config = result.get("configs", {}).get(task, {})
    stated = KNOWN_LEVELS.get(task, {}) | (config.get("metadata") or {})
    if level in stated:
        return float(stated[level])
    if task in result.get(level, {}):
        return float(result[level][task])
    if level == "chance" and config.get("output_type") == "generate_until":
        return 0.0
    if level == "chance" and isinstance(config.get("doc_to_choice"), list):
        return 1 / len(config["doc_to_choice"])
    return None
