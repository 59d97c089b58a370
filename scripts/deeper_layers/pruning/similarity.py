"""The strategy ``similarity`` of the paper."""

from __future__ import annotations

from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def similarity(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """l*(n): the block whose input and output are most alike, ties to the smaller l (paper, section 3.2)."""
    distances = evidence.distances
    blocks = evidence.blocks(n, n_layers)
    return min(blocks, key=lambda block: (distances[block.first, n], block.first), default=None)


SIMILARITY = Strategy("similarity", similarity, needs=frozenset({"distances"}))
