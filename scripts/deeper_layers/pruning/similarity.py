"""The strategy ``similarity`` of the paper."""

from __future__ import annotations

from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def similarity(n: int, n_layers: int, evidence: Evidence) -> LayerSet:
    """l*(n): the block whose input and output are most alike, ties to the smaller l (paper, section 3.2)."""
    distances = evidence.distances
    first = min(range(n_layers - n + 1), key=lambda first: (distances[first, n], first))
    return LayerSet.contiguous(first, n)


SIMILARITY = Strategy("similarity", similarity, needs=frozenset({"distances"}))
