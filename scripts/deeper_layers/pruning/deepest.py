"""The strategies ``deepest`` of the paper, and ``last``."""

from __future__ import annotations

from ..errors import UserError
from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def deepest(n: int, n_layers: int, evidence: Evidence | None = None) -> LayerSet | None:
    """The deepest n layers but the very last one: 0-based [L-1-n, L-1) (paper, section 4.4)."""
    if n > n_layers - 1:
        raise UserError(f"deepest keeps the last layer, so n = {n} of {n_layers} layers cannot be removed")
    return _last_of((evidence or Evidence()).free(n_layers), n, kept=n_layers - 1)


def last(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The deepest n layers, the very last one too: [L-n, L), as others remove them (arXiv 2411.15558)."""
    return _last_of(evidence.free(n_layers), n)


def _last_of(free: list[int], n: int, kept: int | None = None) -> LayerSet | None:
    """The last n of the layers that may go."""
    layers = [layer for layer in free if layer != kept]
    return LayerSet(tuple(layers[len(layers) - n :])) if n <= len(layers) else None


DEEPEST = Strategy("deepest", deepest)
LAST = Strategy("last", last)
