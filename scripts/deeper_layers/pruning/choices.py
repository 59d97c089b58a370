"""What the strategies of a study chose, for each n: the lines of blocks.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.files import replacing
from .layer_set import FULL, LayerSet
from .strategies import STRATEGIES
from .strategy import Distances, Evidence


@dataclass(frozen=True)
class Choice:
    """A line of blocks.csv: ``strategy`` removes ``block`` when asked for n layers. ``distance`` is the
    angular distance over the block, NaN if it was not measured or the block has gaps."""

    strategy: str
    block: LayerSet
    distance: float

    @property
    def n(self) -> int:
        return self.block.n


def choose(strategies: Iterable[str], ns: Sequence[int], n_layers: int, evidence: Evidence) -> list[Choice]:
    """Every strategy's block for n = 0 and each of ``ns``, of a model of ``n_layers`` layers. A strategy
    without a block for an n has no line for it, and without any block none at all."""
    choices = []
    for strategy in strategies:
        asked = {n: STRATEGIES[strategy].choose(n, n_layers, evidence) for n in sorted(set(ns) - {0})}
        blocks = {n: block for n, block in asked.items() if block is not None}
        for n, block in blocks.items():
            if block.n != n:
                raise ValueError(f"the strategy {strategy} chose {block} when asked for {n} layers")
        if blocks or not asked:
            chosen = [FULL, *blocks.values()]
            choices += [Choice(strategy, block, _distance(block, evidence.distances)) for block in chosen]
    return choices


@dataclass(frozen=True)
class PendingBlock(LayerSet):
    """Layers that ``strategy`` can choose only when its evidence is there. Estimates take them for the first
    ones, which is the most work; it equals no other ``LayerSet``."""

    strategy: str = ""


def expected(
    strategies: Iterable[str], ns: Iterable[int], n_layers: int, model_id: str, known: Iterable[Choice] = ()
) -> list[Choice]:
    """What ``choose`` will give for a model before its evidence is there, from the choices that are ``known``
    already; what nobody can tell yet, or does not fit ``n_layers`` that are a guess, is ``PendingBlock``."""
    ns = [n for n in ns if n < n_layers]
    blocks = {(choice.strategy, choice.n): choice.block for choice in known}
    choices = []
    for strategy in strategies:
        if STRATEGIES[strategy].needs:
            found = [blocks.get((strategy, n)) or _pending(n, strategy) for n in [0, *ns]]
        else:
            chosen = [choice.block for choice in choose([strategy], ns, n_layers, Evidence(model_id))]
            found = [_pending(b.n, strategy) if b.n and b.last >= n_layers else b for b in chosen]
        choices += [Choice(strategy, block, math.nan) for block in found]
    return choices


def _pending(n: int, strategy: str) -> LayerSet:
    return PendingBlock(tuple(range(n)), strategy) if n else FULL


def _distance(block: LayerSet, distances: Distances) -> float:
    if not block.n:
        return 0.0
    return distances.get((block.first, block.n), math.nan) if len(block.runs) == 1 else math.nan


COLUMNS = ["strategy", "n", "first", "last", "distance", "block"]


def write_choices(path: str | Path, choices: list[Choice]) -> None:
    """Write blocks.csv: strategy, n, the first and last layer removed (empty for n = 0), distance (empty if
    not measured), and the name of the block, which says it all where layers between the two stay."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for c in choices:
            ends = [c.block.first, c.block.last] if c.n else ["", ""]
            distance = "" if math.isnan(c.distance) else f"{c.distance:.8g}"
            out.writerow([c.strategy, c.n, *ends, distance, c.block])


def read_choices(path: str | Path) -> list[Choice]:
    """The lines of a blocks.csv."""
    with open(path, newline="") as file:
        return [
            Choice(row["strategy"], _block(row), float(row["distance"] or "nan"))
            for row in csv.DictReader(file)
        ]


def _block(row: Mapping[str, str]) -> LayerSet:
    """The block of a line of blocks.csv; files of older versions have no column for its name."""
    if row.get("block"):
        return LayerSet.parse(row["block"])
    return LayerSet.contiguous(int(row["first"] or 0), int(row["n"]))
