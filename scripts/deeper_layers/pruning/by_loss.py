"""Strategies that choose by the loss on calibration text: ``loss``, ``one_shot_loss`` and ``greedy``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from .layer_set import LayerSet
from .strategy import Evidence, Strategy


def blocks_of(ns: Iterable[int], n_layers: int) -> list[LayerSet]:
    """All runs of n layers, for each n of ``ns``, the first first."""
    return [LayerSet.contiguous(first, n) for n in sorted(set(ns)) for first in range(n_layers - n + 1)]


def single_layers(n_layers: int) -> list[LayerSet]:
    """Every layer by itself; none where nothing would stay."""
    return [LayerSet((layer,)) for layer in range(n_layers)] if n_layers > 1 else []


def next_cuts(gone: Iterable[int], free: Iterable[int], n_layers: int) -> dict[int, LayerSet]:
    """What may follow in ``greedy``, by the layer that goes next: one of ``free``, but neither the first
    layer nor the last one (SLEB, ICML 2024)."""
    gone = tuple(gone)
    layers = [layer for layer in free if 0 < layer < n_layers - 1 and layer not in gone]
    return {layer: LayerSet((*gone, layer)) for layer in layers}


def loss(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The run of n layers without which the loss is least; ties to the first."""
    found = {(int(row["first"]), int(row["n"])): float(row["loss"]) for row in _rows(evidence, LOSS)}
    blocks = evidence.blocks(n, n_layers)
    return min(blocks, key=lambda block: (found[block.first, n], block.first), default=None)


def one_shot_loss(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The n layers without each of which, alone, the loss is least (Shortened LLaMA, arXiv 2402.02834); ties
    to the lower layer."""
    found = {int(row["layer"]): float(row["loss"]) for row in _rows(evidence, ONE_SHOT)}
    free = sorted(evidence.free(n_layers), key=lambda layer: (found[layer], layer))
    return LayerSet(tuple(free[:n])) if n <= len(free) else None


def greedy(n: int, n_layers: int, evidence: Evidence) -> LayerSet | None:
    """The n layers that go first where each step takes the one without which the loss is least (SLEB, ICML
    2024)."""
    order = [int(row["layer"]) for row in _rows(evidence, GREEDY)]
    return LayerSet(tuple(order[:n])) if n <= len(order) else None


def _rows(evidence: Evidence, strategy: Strategy) -> list[dict[str, str]]:
    (kind,) = strategy.needs
    path: Path | None = evidence.file(kind)
    assert path is not None  # scripts/blocks.py has asked for it
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


LOSS = Strategy("loss", loss, needs=frozenset({"block_losses"}))
ONE_SHOT = Strategy("one_shot_loss", one_shot_loss, needs=frozenset({"layer_losses"}))
GREEDY = Strategy("greedy", greedy, needs=frozenset({"greedy_losses"}))
