"""The strategy ``random``: the baseline that says what choosing is worth."""

from __future__ import annotations

import hashlib

from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def random(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """n layers drawn by the seed, or with ``contiguous`` one of the blocks of n layers; the same on every
    machine and Python."""
    settings = evidence.settings
    if settings.contiguous:
        blocks = evidence.blocks(n, n_layers)
        return min(blocks, key=lambda block: _draw(settings.seed, n, block.first), default=None)
    free = sorted(evidence.free(n_layers), key=lambda layer: _draw(settings.seed, n, layer))
    return LayerSet(tuple(free[:n])) if n <= len(free) else None


def _draw(seed: int, n: int, number: int) -> str:
    """By which numbers are put in a random order of their own for each seed and n."""
    return hashlib.sha256(f"{seed} {n} {number}".encode()).hexdigest()


RANDOM = Strategy("random", random, keys=frozenset({"seed", "contiguous"}))
