"""What the strategies of a study chose, for each n: the lines of blocks.csv. No strategy is imported here, so
that a new one does not rerun what only reads them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..runtime.files import atomic_write
from .layer_set import LayerSet


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


COLUMNS = ["strategy", "n", "first", "last", "distance", "block"]


def write_choices(path: str | Path, choices: list[Choice]) -> None:
    """Write blocks.csv: strategy, n, the first and last layer removed (empty for n = 0), distance (empty if
    not measured), and the name of the block, which says it all where layers between the two stay."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
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
