"""Sets of layers: what is removed from a model, and how such a set is called in paths and tables.

Layers are numbered 0..L-1. No torch, no pandas: Snakemake imports this module while it builds its graph.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from ..errors import UserError

# One run of layers has both its ends in its name, of several runs a single layer is written bare.
CUT_PATTERN = r"drop_(?:\d+-\d+|\d+(?:-\d+)?(?:_\d+(?:-\d+)?)+)"
NAME_PATTERN = f"full|{CUT_PATTERN}"  # of every set; CUT_PATTERN: of those with layers


@dataclass(frozen=True, order=True)
class LayerSet:
    """The layers ``removed`` from a model, ascending; none for the full model.

    ``str(layers)`` is its name in paths: ``full``, ``drop_21-28`` for one run of layers (both ends are gone;
    ``drop_5-5`` for a single layer), ``drop_3_7-9`` for several runs. Raises UserError for a number below 0.
    """

    removed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "removed", tuple(sorted(set(self.removed))))
        if self.removed and self.removed[0] < 0:
            raise UserError(f"there is no layer {self.removed[0]}: layers are numbered from 0")

    @classmethod
    def contiguous(cls, first: int, n: int) -> LayerSet:
        """The ``n`` layers ``first`` .. ``first`` + ``n`` - 1."""
        return cls(tuple(range(first, first + n)))

    @classmethod
    def parse(cls, name: str) -> LayerSet:
        """The set called ``name``. Raises UserError for what is no name, or is not how the set is written."""
        if name == "full":
            return FULL
        removed: set[int] = set()
        runs = re.fullmatch(r"drop_(RUN(_RUN)*)".replace("RUN", r"[0-9]{1,4}(-[0-9]{1,4})?"), name)
        for run in runs[1].split("_") if runs else [""]:
            first, _, last = run.partition("-")
            span = range(int(first), int(last or first) + 1) if run else ()
            if not span:
                raise UserError(
                    f"{name!r} is not a block: write full, drop_FIRST-LAST as in drop_21-28, or drop_3_7-9"
                )
            removed.update(span)
        layers = cls(tuple(removed))
        if str(layers) != name:
            raise UserError(f"{name!r} is not a block as blocks are written: write {layers}")
        return layers

    def __str__(self) -> str:
        runs = self.runs
        if len(runs) == 1:
            return f"drop_{self.first}-{self.last}"
        words = (str(first) if first == last else f"{first}-{last}" for first, last in runs)
        return "drop_" + "_".join(words) if runs else "full"

    def __contains__(self, layer: int) -> bool:
        at = bisect_left(self.removed, layer)
        return at < self.n and self.removed[at] == layer

    @property
    def n(self) -> int:
        """The number of layers removed."""
        return len(self.removed)

    @property
    def first(self) -> int:
        """The first removed layer; the full model has none (IndexError)."""
        return self.removed[0]

    @property
    def last(self) -> int:
        """The last removed layer; the full model has none (IndexError)."""
        return self.removed[-1]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(first, last) of each run of removed layers that follow each other, ascending."""
        if not self.removed:
            return []
        gaps = [(a, b) for a, b in pairwise(self.removed) if b > a + 1]
        return list(zip([self.first, *(b for _, b in gaps)], [*(a for a, _ in gaps), self.last], strict=True))

    def kept(self, n_layers: int) -> list[int]:
        """The layers that stay, ascending, of a model of ``n_layers``. Raises UserError if none would, or if
        the model has not all of those removed."""
        if self.n >= n_layers or (self.n and self.last >= n_layers):
            raise UserError(f"block {self} does not fit a model of {n_layers} layers: at least one must stay")
        gone = set(self.removed)
        return [i for i in range(n_layers) if i not in gone]

    def new_index(self, layer: int) -> int | None:
        """The number that ``layer`` has once the set is removed; None for one of the set."""
        return None if layer in self else layer - bisect_left(self.removed, layer)


FULL = LayerSet()
