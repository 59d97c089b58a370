"""Panels of a figure, and their axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, MaxNLocator

COLUMN, PAGE = 3.3, 6.9  # inches: one column of a paper, and the width of both
FRACTION, LAYERS = "layers removed (%)", r"layers removed, $n$ and %"


def panels(
    rows: int, columns: int, height: float, least: float = COLUMN / 2, **share
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [rows, columns], as wide as a column of a paper if the panels fit, else as both.

    Args:
        rows: the number of rows.
        columns: the number of columns.
        height: inches for each row.
        least: inches that a panel is wide at least.
        share: ``sharex`` and ``sharey`` of matplotlib's subplots.
    """
    width = COLUMN if columns * least <= COLUMN else PAGE
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def row_height(rows: Sequence) -> float:
    """Inches for each of a figure's rows of panels, with its share of the legend above."""
    return 1.2 + 0.5 / max(1, len(rows))


def panel_grid(count: int, most: int, height: float, **size) -> tuple[Figure, np.ndarray]:
    """A figure and its ``count`` axes, in rows of at most ``most``."""
    columns = min(count, most)
    figure, axes = panels(math.ceil(count / columns), columns, height, **size)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, axes.flatten()[:count]


def label_axes(axes: np.ndarray, titles: Iterable[str], names: Iterable[str]) -> None:
    """Of axes [rows, columns]: titles over the columns, names beside the rows, the fraction removed below."""
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name)
    for ax in axes[-1]:
        ax.set_xlabel(removed_label(ax))


class Layers(Locator):
    """Ticks of an axis of percentages at whole numbers of ``n_layers`` layers; of models of several depths
    (see ``removed_axis``) at round percentages."""

    def __init__(self, n_layers: int):
        self.n_layers: int | None = n_layers

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        if self.n_layers is None:
            return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(vmin, vmax)
        a_layer = 100 / self.n_layers
        return a_layer * MaxNLocator(5, integer=True).tick_values(vmin / a_layer, vmax / a_layer)

    def __call__(self) -> np.ndarray:
        return self.tick_values(*self.axis.get_view_interval())

    def label(self, x: float, _=None) -> str:
        return f"{x:g}" if self.n_layers is None else f"{x * self.n_layers / 100:.0f}\n{x:.0f}%"


def removed_axis(ax: Axes, n_layers: int) -> None:
    """Let an x axis of percentages tell n too, unless it shows models of different numbers of layers."""
    layers = ax.xaxis.get_major_locator()
    if not isinstance(layers, Layers):
        layers = Layers(n_layers)
        ax.xaxis.set_major_locator(layers)
        ax.xaxis.set_major_formatter(layers.label)
    elif layers.n_layers != n_layers:
        layers.n_layers = None


def removed_label(ax: Axes) -> str:
    """What the x axis of a panel shows."""
    return LAYERS if getattr(ax.xaxis.get_major_locator(), "n_layers", None) else FRACTION


def whole_numbers(*axes: Axis) -> None:
    """Ticks at whole numbers only: layers are counted."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
