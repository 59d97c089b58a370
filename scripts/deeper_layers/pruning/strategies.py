"""The strategies that choose which block of n layers to remove. No torch, no pandas: Snakemake imports this
module while it builds its graph.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from .layer_set import LayerSet

Distances = Mapping[tuple[int, int], float]  # (first, n) -> mean angular distance in [0, 1]


def similarity(n: int, n_layers: int, distances: Distances, authors: Mapping | None = None) -> LayerSet:
    """l*(n): the block whose input and output are most alike, ties to the smaller l (paper, section 3.2)."""
    first = min(range(n_layers - n + 1), key=lambda first: (distances[first, n], first))
    return LayerSet.contiguous(first, n)


def deepest(
    n: int, n_layers: int, distances: Distances | None = None, authors: Mapping | None = None
) -> LayerSet:
    """The deepest n layers but the very last one: 0-based [L-1-n, L-1) (paper, section 4.4)."""
    if n > n_layers - 1:
        raise UserError(f"deepest keeps the last layer, so n = {n} of {n_layers} layers cannot be removed")
    return LayerSet.contiguous(n_layers - 1 - n, n)


def published(
    n: int, n_layers: int, distances: Distances | None, authors: Mapping[int, LayerSet]
) -> LayerSet | None:
    """The authors' own l*(n) (paper, figure 4), None where they show none."""
    return authors.get(n)


STRATEGIES = {"similarity": similarity, "deepest": deepest, "published": published}
BY_DISTANCE = {"similarity"}  # the strategies that need a similarity pass


def read_distances(path: str | Path) -> dict[tuple[int, int], float]:
    """The means of a distances.csv, by (first, n)."""
    with open(path, newline="") as file:
        return {(int(r["first"]), int(r["n"])): float(r["distance"]) for r in csv.DictReader(file)}
