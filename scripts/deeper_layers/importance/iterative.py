"""Which layers go first where those of least Block Influence go and the rest is measured again (after the
iterative pruning of Prune&Comp, AAAI 2026)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from ..models.layers import decoder_layers, removed
from ..pruning.layer_set import LayerSet
from ..runtime.files import atomic_write
from ..settings.distances import DistanceSettings
from .influence import block_influence


@dataclass(frozen=True)
class IterativeInfluence:
    """Rows (n, layer, influence): the layer that goes as the n-th, and its influence when it did."""

    rows: list[tuple[int, int, float]]

    def write(self, path: str | Path) -> None:
        """Write iterative_influence.csv."""
        with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["n", "layer", "influence"])
            out.writerows((n, layer, f"{value:.10g}") for n, layer, value in self.rows)


def iterative_influence(
    model: PreTrainedModel,
    documents: Sequence[np.ndarray],
    n: int,
    step: int,
    free: Sequence[int],
    batch_tokens: int = DistanceSettings.batch_tokens,
) -> IterativeInfluence:
    """The first ``n`` layers to go, of those that are ``free`` to and as long as one stays: ``step`` at a
    time those of least influence in the model without the earlier ones; ties to the lower layer. One pass of
    ``documents`` (int64 [T] each) for each step."""
    n_layers, gone = len(decoder_layers(model)), []
    rows: list[tuple[int, int, float]] = []
    most = min(n, len(free), n_layers - 1)
    while len(rows) < most:
        cut = LayerSet(tuple(gone))
        with removed(model, cut):
            found = block_influence(model, documents, batch_tokens).mean
        of_layer = dict(zip(cut.kept(n_layers), found.tolist(), strict=True))
        left = sorted((of_layer[layer], layer) for layer in free if layer in of_layer)
        for value, layer in left[: min(step, most - len(rows))]:
            gone.append(layer)
            rows.append((len(rows) + 1, layer, value))
    return IterativeInfluence(rows)
