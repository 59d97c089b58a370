"""The strategy ``given``: layers in an order from the configuration, or that others have published
(resources/published/orders.csv: an order's name, the hub id of the model, the layers, the source)."""

from __future__ import annotations

import csv
from functools import cache

from ..errors import UserError
from ..resources import resource
from .layer_set import LayerSet
from .strategy import Evidence, Strategy

ORDERS = resource("published/orders.csv")


@cache
def published_orders() -> dict[tuple[str, str], tuple[int, ...]]:
    """Layers in the order in which they go, by the names of the order and of the model."""
    with open(ORDERS, newline="") as file:
        return {
            (row["order"], row["model"]): tuple(map(int, row["layers"].split()))
            for row in csv.DictReader(file)
        }


def given(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The first n of the order that are not protected; None where it has fewer, or none for this model."""
    settings = evidence.settings
    order = tuple(settings.layers)
    if settings.order:
        order = published_orders().get((settings.order, evidence.model_id), ())
    if strangers := [layer for layer in order if layer >= n_layers]:
        raise UserError(f"strategies: layers names layer {strangers[0]} of a model of {n_layers} layers")
    free = set(evidence.free(n_layers))
    layers = [layer for layer in order if layer in free]
    return LayerSet(tuple(layers[:n])) if n <= len(layers) else None


GIVEN = Strategy("given", given, keys=frozenset({"layers", "order"}))
