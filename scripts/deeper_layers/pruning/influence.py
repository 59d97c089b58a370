"""The strategies ``influence``, ShortGPT's Block Influence (arXiv 2403.03853), and ``iterative``, the same
measured again as layers go."""

from __future__ import annotations

import csv
from pathlib import Path

from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def influence(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The n layers that change the hidden states least, wherever they are; ties to the lower layer."""
    path = evidence.file("influence")
    assert path is not None  # scripts/blocks.py has asked for it
    of_layer = read_influence(path)
    free = sorted(evidence.free(n_layers), key=lambda layer: (of_layer[layer], layer))
    return LayerSet(tuple(free[:n])) if n <= len(free) else None


def read_influence(path: Path) -> dict[int, float]:
    """Block Influence by layer, of an influence.csv."""
    with open(path, newline="") as file:
        return {int(row["layer"]): float(row["influence"]) for row in csv.DictReader(file)}


def iterative(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The n layers that go first where each time those of least influence on the model as it is by then go,
    ``step`` at a time; ties to the lower layer."""
    path = evidence.file("iterative_influence")
    assert path is not None  # scripts/blocks.py has asked for it
    with open(path, newline="") as file:
        order = [int(row["layer"]) for row in csv.DictReader(file)]
    return LayerSet(tuple(order[:n])) if n <= len(order) else None


INFLUENCE = Strategy("influence", influence, needs=frozenset({"influence"}))
ITERATIVE = Strategy(
    "iterative", iterative, needs=frozenset({"iterative_influence"}), keys=frozenset({"step"})
)
