"""The strategy ``published``: the authors' own blocks (resources/published/blocks.csv), first removed layers
(0-based) read off the paper's figure 4.
"""

from __future__ import annotations

import csv
from functools import cache

from ..resources import resource
from .layer_set import LayerSet
from .strategy import Evidence, Strategy

PUBLISHED_BLOCKS = resource("published/blocks.csv")


@cache
def published_blocks(model_id: str) -> dict[int, LayerSet]:
    """The authors' blocks by n of a model, named by its hub id; none for a model that they do not show."""
    with open(PUBLISHED_BLOCKS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model_id]
    spans = ((int(row["first_removed"]), int(row["n_removed"])) for row in rows)
    return {n: LayerSet.contiguous(first, n) for first, n in spans}


def published(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The authors' own l*(n) (paper, figure 4), None where they show none."""
    return published_blocks(evidence.model_id).get(n)


PUBLISHED = Strategy("published", published)
