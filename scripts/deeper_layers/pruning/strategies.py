"""The rules that choose which layers go, by their names in ``study.strategies`` and ``strategies.NAME.rule``.

A new one is a module of this room with a ``Strategy``, and an entry here.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..settings.strategies import StrategySettings
from .by_loss import GREEDY, LOSS, ONE_SHOT
from .deepest import DEEPEST, LAST
from .given import GIVEN
from .influence import INFLUENCE, ITERATIVE
from .published_blocks import PUBLISHED
from .random_layers import RANDOM
from .similarity import SIMILARITY
from .strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        SIMILARITY,
        DEEPEST,
        PUBLISHED,
        INFLUENCE,
        ITERATIVE,
        LOSS,
        ONE_SHOT,
        GREEDY,
        LAST,
        RANDOM,
        GIVEN,
    )
}


def needed(strategies: Iterable[StrategySettings]) -> list[str]:
    """The names of what has to be measured for ``strategies``, sorted."""
    return sorted({one.evidence(kind) for one in strategies for kind in STRATEGIES[one.rule].needs})
