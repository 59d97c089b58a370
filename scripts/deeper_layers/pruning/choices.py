"""What the strategies of a study chose, for each n: the lines of blocks.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.files import replacing
from .layer_set import FULL, LayerSet
from .strategies import STRATEGIES, Distances


@dataclass(frozen=True)
class Choice:
    """A line of blocks.csv: ``strategy`` removes ``block`` when asked for n layers."""

    strategy: str
    block: LayerSet
    distance: float

    @property
    def n(self) -> int:
        return self.block.n


def choose(
    strategies: Sequence[str],
    ns: Sequence[int],
    n_layers: int,
    distances: Distances | None = None,
    authors: Mapping[int, LayerSet] | None = None,
) -> list[Choice]:
    """Every strategy's block for n = 0 and each n, with its distance (NaN if none were measured).

    ``distances`` maps (first, n) to the mean distance, ``authors`` n to the published block. A strategy
    without a block for an n has no line for it, and without any block none at all.
    """
    choices = []
    for strategy in strategies:
        choose_one = STRATEGIES[strategy]
        blocks = [choose_one(n, n_layers, distances, authors or {}) for n in sorted(set(ns) - {0})]
        if any(blocks) or not blocks:
            blocks = [FULL, *filter(None, blocks)]
            choices += [Choice(strategy, block, _distance(block, distances)) for block in blocks]
    return choices


def _distance(block: LayerSet, distances: Distances | None) -> float:
    if not block.n:
        return 0.0
    return distances[block.first, block.n] if distances else math.nan


COLUMNS = ["strategy", "n", "first", "last", "distance", "block"]


def write_choices(path: str | Path, choices: list[Choice]) -> None:
    """Write blocks.csv: strategy, n, the first and last layer removed (empty for n = 0), distance (empty if
    not measured), and the name of the block, which says it all where layers between the two stay."""
    with replacing(path) as aside, open(aside, "w", newline="") as file:
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
