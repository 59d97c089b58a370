"""The jobs that share what a recipe has healed, to evaluate it (``study.chunks``)."""

from __future__ import annotations

from collections.abc import Iterable

from ..pruning.choices import Choice
from ..pruning.layer_set import LayerSet
from .study import Study


def chunks(study: Study, recipe: str, model: str, choices: Iterable[Choice]) -> list[str]:
    """Names of the jobs, for ``blocks_of``."""
    count = min(study.config["study"]["chunks"], len(study.healed(recipe, model, choices)))
    return [f"{i + 1}of{count}" for i in range(count)]


def blocks_of(chunk: str, study: Study, recipe: str, model: str, choices: Iterable[Choice]) -> list[LayerSet]:
    """The cuts of the job ``2of3``, dealt so that each has small and large ones; of a job that is named by a
    cut, this one."""
    first, _, count = chunk.partition("of")
    if not count:
        return [LayerSet.parse(chunk)]
    return study.healed(recipe, model, choices)[int(first) - 1 :: int(count)]
