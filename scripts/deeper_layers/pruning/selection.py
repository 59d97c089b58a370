"""What the strategies of a study choose, and what they will choose where their evidence is not there yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..settings.strategies import StrategySettings
from .choices import Choice
from .layer_set import FULL, LayerSet
from .strategies import STRATEGIES
from .strategy import Distances, Evidence


def choose(
    strategies: Mapping[str, StrategySettings], ns: Sequence[int], n_layers: int, evidence: Evidence
) -> list[Choice]:
    """Every strategy's block for n = 0 and each of ``ns``, of a model of ``n_layers`` layers. A strategy
    without a block for an n has no line for it, and without any block none at all."""
    choices = []
    for strategy, settings in strategies.items():
        known = replace(evidence, settings=settings)
        rule = STRATEGIES[settings.rule]
        asked = {n: rule.choose(n, n_layers, known) for n in sorted(set(ns) - {0})}
        blocks = {n: block for n, block in asked.items() if block is not None}
        for n, block in blocks.items():
            if block.n != n:
                raise ValueError(f"the strategy {strategy} chose {block} when asked for {n} layers")
        if blocks or not asked:
            chosen = [FULL, *blocks.values()]
            choices += [Choice(strategy, block, _distance(block, known.distances)) for block in chosen]
    return choices


@dataclass(frozen=True)
class PendingBlock(LayerSet):
    """Layers that ``strategy`` can choose only when its evidence is there. Estimates take them for the first
    ones, which is the most work; it equals no other ``LayerSet``."""

    strategy: str = ""


def expected(
    strategies: Mapping[str, StrategySettings],
    ns: Iterable[int],
    n_layers: int,
    model_id: str,
    known: Iterable[Choice] = (),
) -> list[Choice]:
    """What ``choose`` will give for a model before its evidence is there, from the choices that are ``known``
    already; what nobody can tell yet, or does not fit ``n_layers`` that are a guess, is ``PendingBlock``."""
    ns = [n for n in ns if n < n_layers]
    blocks = {(choice.strategy, choice.n): choice.block for choice in known}
    choices = []
    for strategy, settings in strategies.items():
        if STRATEGIES[settings.rule].needs:
            found = [blocks.get((strategy, n)) or _pending(n, strategy) for n in [0, *ns]]
        else:
            chosen = [
                choice.block for choice in choose({strategy: settings}, ns, n_layers, Evidence(model_id))
            ]
            found = [_pending(b.n, strategy) if b.n and b.last >= n_layers else b for b in chosen]
        choices += [Choice(strategy, block, math.nan) for block in found]
    return choices


def _pending(n: int, strategy: str) -> LayerSet:
    return PendingBlock(tuple(range(n)), strategy) if n else FULL


def _distance(block: LayerSet, distances: Distances) -> float:
    if not block.n:
        return 0.0
    return distances.get((block.first, block.n), math.nan) if len(block.runs) == 1 else math.nan
