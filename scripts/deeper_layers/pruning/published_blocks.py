"""The authors' own blocks (resources/published/blocks.csv): first removed layers (0-based), read off the
paper's figure 4.
"""

from __future__ import annotations

import csv

from ..resources import resource
from .layer_set import LayerSet

PUBLISHED = resource("published/blocks.csv")


def published_blocks(model_id: str) -> dict[int, LayerSet]:
    """The authors' blocks by n of a model, named by its hub id; none for a model that they do not show.

    resources/published/blocks.csv: first removed layers (0-based) read off the paper's figure 4.
    """
    with open(PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model_id]
    spans = ((int(row["first_removed"]), int(row["n_removed"])) for row in rows)
    return {n: LayerSet.contiguous(first, n) for first, n in spans}
