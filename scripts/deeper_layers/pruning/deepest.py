"""The strategy ``deepest`` of the paper."""

from __future__ import annotations

from ..errors import UserError
from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def deepest(n: int, n_layers: int, evidence: Evidence | None = None) -> LayerSet:
    """The deepest n layers but the very last one: 0-based [L-1-n, L-1) (paper, section 4.4)."""
    if n > n_layers - 1:
        raise UserError(f"deepest keeps the last layer, so n = {n} of {n_layers} layers cannot be removed")
    return LayerSet.contiguous(n_layers - 1 - n, n)


DEEPEST = Strategy("deepest", deepest)
