"""The authors' own blocks (resources/published/blocks.csv): first removed layers (0-based), read off the
paper's figure 4.
"""

from __future__ import annotations

import csv

from ..resources import resource
from .blocks import Block

PUBLISHED = resource("published/blocks.csv")


def published_blocks(model_id: str) -> dict[int, Block]:
    """The authors' blocks by n of a model, named by its hub id; none for a model that they do not show.

    resources/published/blocks.csv: first removed layers (0-based) read off the paper's figure 4.
    """
    with open(PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model_id]
    return {int(r["n_removed"]): Block(int(r["first_removed"]), int(r["n_removed"])) for r in rows}
