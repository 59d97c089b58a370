"""Blocks of layers, and the strategies that choose which block of n layers to remove.

Layers are numbered 0..L-1; a block names exactly the layers that are gone, both ends inclusive.
No torch, no pandas: Snakemake imports this module while it builds its graph.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .files import replacing


@dataclass(frozen=True, order=True)
class Block:
    """The n contiguous layers first..first+n-1 that are removed; n = 0 is the full model.

    ``str(block)`` is the name used in paths: ``full``, or ``drop_21-28`` (both ends inclusive).
    """

    first: int = 0
    n: int = 0

    def __post_init__(self):
        if self.n == 0 and self.first != 0:
            object.__setattr__(self, "first", 0)
        if self.first < 0 or self.n < 0:
            raise UserError(f"a block cannot start at {self.first} and have {self.n} layers")

    @classmethod
    def parse(cls, name: str) -> Block:
        """The block called ``full`` or ``drop_FIRST-LAST``. Raises UserError for any other name."""
        if name == "full":
            return FULL
        match = re.fullmatch(r"drop_(\d+)-(\d+)", name)
        if not match or int(match[1]) > int(match[2]):
            raise UserError(f"{name!r} is not a block: write full, or drop_FIRST-LAST as in drop_21-28")
        first, last = int(match[1]), int(match[2])
        return cls(first, last - first + 1)

    def __str__(self) -> str:
        return f"drop_{self.first}-{self.last}" if self.n else "full"

    @property
    def last(self) -> int:
        """The last removed layer (first - 1 for the full model)."""
        return self.first + self.n - 1

    def kept(self, n_layers: int) -> list[int]:
        """Indices of the layers that stay, of a model of ``n_layers`` layers."""
        if self.first + self.n > n_layers or self.n >= n_layers > 0:
            raise UserError(f"block {self} does not fit a model of {n_layers} layers: at least one must stay")
        return [i for i in range(n_layers) if not self.first <= i < self.first + self.n]


FULL = Block()

Distances = Mapping[tuple[int, int], float]  # (first, n) -> mean angular distance in [0, 1]


def similarity(n: int, n_layers: int, distances: Distances, authors: Mapping | None = None) -> Block:
    """l*(n): the block whose input and output are most alike, ties to the smaller l (paper, section 3.2)."""
    return Block(min(range(n_layers - n + 1), key=lambda first: (distances[first, n], first)), n)


def deepest(
    n: int, n_layers: int, distances: Distances | None = None, authors: Mapping | None = None
) -> Block:
    """The deepest n layers but the very last one: 0-based [L-1-n, L-1) (paper, section 4.4)."""
    if n > n_layers - 1:
        raise UserError(f"deepest keeps the last layer, so n = {n} of {n_layers} layers cannot be removed")
    return Block(n_layers - 1 - n, n)


def published(
    n: int, n_layers: int, distances: Distances | None, authors: Mapping[int, Block]
) -> Block | None:
    """The authors' own l*(n) (paper, figure 4), None where they show none."""
    return authors.get(n)


STRATEGIES = {"similarity": similarity, "deepest": deepest, "published": published}
BY_DISTANCE = {"similarity"}  # the strategies that need a similarity pass

PUBLISHED = Path(__file__).parents[2] / "resources/published/blocks.csv"


def published_blocks(model_id: str) -> dict[int, Block]:
    """The authors' blocks by n of a model, named by its hub id; none for a model that they do not show.

    resources/published/blocks.csv: first removed layers (0-based) read off the paper's figure 4.
    """
    with open(PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model_id]
    return {int(r["n_removed"]): Block(int(r["first_removed"]), int(r["n_removed"])) for r in rows}


@dataclass(frozen=True)
class Choice:
    """A line of blocks.csv: ``strategy`` removes ``block`` when asked for n layers."""

    strategy: str
    block: Block
    distance: float

    @property
    def n(self) -> int:
        return self.block.n


def choose(
    strategies: Sequence[str],
    ns: Sequence[int],
    n_layers: int,
    distances: Distances | None = None,
    authors: Mapping[int, Block] | None = None,
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


def _distance(block: Block, distances: Distances | None) -> float:
    if not block.n:
        return 0.0
    return distances[block.first, block.n] if distances else math.nan


COLUMNS = ["strategy", "n", "first", "last", "distance"]


def write_choices(path: str | Path, choices: list[Choice]) -> None:
    """Write blocks.csv: strategy, n, first, last (empty for n = 0), distance (empty if not measured)."""
    with replacing(path) as aside, open(aside, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for c in choices:
            ends = [c.block.first, c.block.last] if c.n else ["", ""]
            distance = "" if math.isnan(c.distance) else f"{c.distance:.8g}"
            out.writerow([c.strategy, c.n, *ends, distance])


def read_choices(path: str | Path) -> list[Choice]:
    """The lines of a blocks.csv."""
    with open(path, newline="") as file:
        return [
            Choice(r["strategy"], Block(int(r["first"] or 0), int(r["n"])), float(r["distance"] or "nan"))
            for r in csv.DictReader(file)
        ]


def read_distances(path: str | Path) -> dict[tuple[int, int], float]:
    """The means of a distances.csv, by (first, n)."""
    with open(path, newline="") as file:
        return {(int(r["first"]), int(r["n"])): float(r["distance"]) for r in csv.DictReader(file)}
