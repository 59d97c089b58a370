"""What a strategy is, and what it may choose by. No torch, no pandas: Snakemake imports this module while it
builds its graph.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import UserError
from ..settings.strategies import StrategySettings
from .layer_set import LayerSet

Distances = Mapping[tuple[int, int], float]  # (first, n) -> mean angular distance in [0, 1]

# Kinds of evidence, and the section of the configuration that says how each is measured.
SECTIONS = {
    "distances": "distances",
    "influence": "distances",
    "iterative_influence": "distances",
    "block_losses": "losses",
    "layer_losses": "losses",
    "greedy_losses": "losses",
}


@dataclass(frozen=True)
class Evidence:
    """What is known of a model when its layers are chosen.

    Attributes:
        model_id: the id of the uncut model on the hub, or its folder.
        files: what was measured, by its name (``StrategySettings.evidence``).
        settings: of the strategy that chooses.
    """

    model_id: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    settings: StrategySettings = StrategySettings(rule="deepest")

    def file(self, kind: str) -> Path | None:
        """What was measured of a kind, on the strategy's text; None if it was not."""
        return self.files.get(self.settings.evidence(kind))

    @cached_property
    def distances(self) -> Distances:
        """The means of distances.csv, by (first, n); empty if they were not measured."""
        path = self.file("distances")
        return read_distances(path) if path else {}

    def free(self, n_layers: int) -> list[int]:
        """The layers that may go, ascending: all but the protected ones. UserError if the model lacks one."""
        protected = set()
        for layer in self.settings.protect:
            if not -n_layers <= layer < n_layers:
                raise UserError(f"strategies: protect names layer {layer} of a model of {n_layers} layers")
            protected.add(layer % n_layers)
        return [layer for layer in range(n_layers) if layer not in protected]

    def blocks(self, n: int, n_layers: int) -> list[LayerSet]:
        """All runs of n layers without a protected one, the first first."""
        free = set(self.free(n_layers))
        firsts = [first for first in range(n_layers - n + 1) if free.issuperset(range(first, first + n))]
        return [LayerSet.contiguous(first, n) for first in firsts]


@dataclass(frozen=True)
class Strategy:
    """A rule that chooses which layers go.

    Attributes:
        name: what ``study.strategies`` and ``strategies.NAME.rule`` call it.
        choose: the set of n layers to remove, given n, the number of layers of the model, of which n are
            fewer, and the evidence, which has the settings of the strategy; None if the strategy has no set
            of n layers of this model.
        needs: kinds of what has to be measured first, of ``SECTIONS``. KIND is results/MODEL/KIND.csv, or
            KIND-TEXT.csv where a strategy names a text, which a rule of the workflow makes; of a kind that
            protected layers change (``settings.strategies.SEARCHED``) it names those too.
        keys: settings that it reads, beside ``protect`` and, if it needs something, ``text``.
    """

    name: str
    choose: Callable[[int, int, Evidence], LayerSet | None]
    needs: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


def read_distances(path: str | Path) -> dict[tuple[int, int], float]:
    """The means of a distances.csv, by (first, n)."""
    with open(path, newline="") as file:
        return {(int(r["first"]), int(r["n"])): float(r["distance"]) for r in csv.DictReader(file)}
