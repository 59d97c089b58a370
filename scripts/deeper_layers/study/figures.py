"""The figures that a study has data for, of all that ``reporting.figures.registry`` has."""

from __future__ import annotations

from ..layout import PRUNED
from ..reporting.figures.registry import DISTANCES, MODEL, SPEED, STUDY, TABLE, available
from ..reporting.published import Published
from .study import Study


def of_distances(study: Study) -> list[str]:
    """Figures of one model's distances."""
    return available(MODEL, DISTANCES, _facts(study))


def of_speed(study: Study) -> list[str]:
    """Figures of one model's speed."""
    return available(MODEL, SPEED, _facts(study))


def of_model(study: Study) -> list[str]:
    """Figures of one model's rows in the table."""
    return available(MODEL, TABLE, _facts(study))


def of_study(study: Study) -> list[str]:
    """Figures of all models."""
    return available(STUDY, TABLE, _facts(study))


def prompts(study: Study) -> list[str]:
    """The columns of the task that most suites ask, if several do."""
    columns: dict[str, list[str]] = {}
    for suite in study.suites:
        for task in study.suite(suite).get("tasks", []):
            columns.setdefault(task, []).append(f"{suite}_{task}")
    return max(columns.values(), key=len, default=[])


def _facts(study: Study) -> set[str]:
    """What the study has, in the words of ``FigureEntry.needs``."""
    facts = {
        "cuts": any(study.removals(model) != [] for model in study.models),
        "scores": bool(study.suites),
        "loss": any(map(study.is_loss, study.suites)),
        "recipes": bool(study.recipes),
        "no recipes": not study.recipes,
        "several recipes": len(study.recipes) > 1,
        "distances": "distances" in study.evidence,
        "speed": study.config["study"]["speed"],
        "prompts": len(prompts(study)) > 1,
        "published": any(_is_published(study, model) for model in study.models),
    }
    return {name for name, holds in facts.items() if holds}


def _is_published(study: Study, model: str) -> bool:
    """Whether the paper has a value beside one of ours, for the strategy that figures show."""
    paper = Published(study.model(model).id)
    return any(
        paper.value(study.strategies[0], n, PRUNED, metric) is not None
        for n in [0, *(study.removals(model) or [])]
        for metric in _published_metrics(study)
    )


def _published_metrics(study: Study) -> set[str]:
    """What the suites measure, by the paper's names; of tasks, those whose shots are configured."""
    names = set()
    for suite in study.suites:
        settings = study.suite(suite)
        if study.is_loss(suite):
            names |= {"c4_loss_nats"} if study.is_c4(suite) else set()
        else:
            names |= {f"{task}_{settings.get('shots')}shot" for task in settings.get("tasks", [])}
    return names
