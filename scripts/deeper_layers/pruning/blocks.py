"""Blocks of layers: what is removed from a model.

Layers are numbered 0..L-1; a block names exactly the layers that are gone, both ends inclusive.
No torch, no pandas: Snakemake imports this module while it builds its graph.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True, order=True)
class Block:
    """The n contiguous layers first..first+n-1 that are removed; n = 0 is the full model.

    ``str(block)`` is the name used in paths: ``full``, or ``drop_21-28`` (both ends inclusive).
    """

    first: int = 0
    n: int = 0

    def __post_init__(self):
        if self.n == 0 and self.first != 0:
            object.__setattr__(self, "first", 0)
        if self.first < 0 or self.n < 0:
            raise UserError(f"a block cannot start at {self.first} and have {self.n} layers")

    @classmethod
    def parse(cls, name: str) -> Block:
        """The block called ``full`` or ``drop_FIRST-LAST``. Raises UserError for any other name."""
        if name == "full":
            return FULL
        match = re.fullmatch(r"drop_(\d+)-(\d+)", name)
        if not match or int(match[1]) > int(match[2]):
            raise UserError(f"{name!r} is not a block: write full, or drop_FIRST-LAST as in drop_21-28")
        first, last = int(match[1]), int(match[2])
        return cls(first, last - first + 1)

    def __str__(self) -> str:
        return f"drop_{self.first}-{self.last}" if self.n else "full"

    @property
    def last(self) -> int:
        """The last removed layer (first - 1 for the full model)."""
        return self.first + self.n - 1

    def kept(self, n_layers: int) -> list[int]:
        """Indices of the layers that stay, of a model of ``n_layers`` layers."""
        if self.first + self.n > n_layers or self.n >= n_layers > 0:
            raise UserError(f"block {self} does not fit a model of {n_layers} layers: at least one must stay")
        return [i for i in range(n_layers) if not self.first <= i < self.first + self.n]


FULL = Block()
