"""What a strategy is, and what it may choose by. No torch, no pandas: Snakemake imports this module while it
builds its graph.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .layer_set import LayerSet

Distances = Mapping[tuple[int, int], float]  # (first, n) -> mean angular distance in [0, 1]


@dataclass(frozen=True)
class Evidence:
    """What is known of a model when its layers are chosen.

    Attributes:
        model_id: the id of the uncut model on the hub, or its folder.
        files: what was measured, by the names that strategies need it by.
    """

    model_id: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def distances(self) -> Distances:
        """The means of distances.csv, by (first, n); empty if they were not measured."""
        return read_distances(self.files["distances"]) if "distances" in self.files else {}


@dataclass(frozen=True)
class Strategy:
    """A way to choose which layers go.

    Attributes:
        name: what ``study.strategies`` calls it.
        choose: the set of n layers to remove, given n, the number of layers of the model, of which n are
            fewer, and the evidence; None if the strategy has no set of n layers of this model.
        needs: names of what has to be measured first. NAME is results/MODEL/NAME.csv, which a rule of the
            workflow makes, and the option --NAME of scripts/blocks.py.
    """

    name: str
    choose: Callable[[int, int, Evidence], LayerSet | None]
    needs: frozenset[str] = frozenset()


def read_distances(path: str | Path) -> dict[tuple[int, int], float]:
    """The means of a distances.csv, by (first, n)."""
    with open(path, newline="") as file:
        return {(int(r["first"]), int(r["n"])): float(r["distance"]) for r in csv.DictReader(file)}
