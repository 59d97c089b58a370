"""The strategies that choose which layers go, by their names in ``study.strategies``.

A new one is a module of this room with a ``Strategy``, and an entry here.
"""

from __future__ import annotations

from collections.abc import Iterable

from .deepest import DEEPEST
from .published_blocks import PUBLISHED
from .similarity import SIMILARITY
from .strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        SIMILARITY,
        DEEPEST,
        PUBLISHED,
    )
}


def needed(strategies: Iterable[str]) -> list[str]:
    """The names of what has to be measured for ``strategies``, sorted."""
    return sorted({name for strategy in strategies for name in STRATEGIES[strategy].needs})
