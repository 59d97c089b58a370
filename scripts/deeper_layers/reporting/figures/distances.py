"""Figures of the angular distances, from each model's distances.csv."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .curves import band
from .panels import COLUMN, panel_grid, whole_numbers

FIRST, SIZE = r"first layer of the block, $\ell$", "layers in the block, $n$"


def distance_curves(distances: Mapping[str, pd.DataFrame]) -> Figure:
    """Angular distance d against the first layer l, a curve for each n, l*(n) in black (paper, figure 1c).

    Args:
        distances: of each model, a row per block: first layer, n, distance and its standard error.
    """
    fig, axes = panel_grid(len(distances), most=2, height=2.4, least=COLUMN)
    for ax, (model, frame) in zip(axes, distances.items(), strict=True):
        shade = ScalarMappable(Normalize(1, max(2, frame["n"].max() - 1)), "viridis")
        for n, rows in _removable(frame).groupby("n"):
            ax.plot(rows["first"], rows["distance"], color=shade.to_rgba(n), lw=0.9, marker="o", ms=1.4)
            band(ax, rows["first"], rows["distance"], rows["stderr"], shade.to_rgba(n))
        best = closest(frame)
        ax.plot(best["first"], best["distance"], "k.-", lw=0.8, ms=4, label=r"$\ell^*(n)$", zorder=5)
        ax.set(title=model if len(distances) > 1 else "", ylim=(0, None))
        bar = fig.colorbar(shade, ax=ax, pad=0.02, aspect=25, label=SIZE)
        whole_numbers(ax.xaxis, bar.ax.yaxis)
    axes[0].legend()
    fig.supxlabel(FIRST)
    fig.supylabel(r"angular distance $d(x^{(\ell)},\, x^{(\ell+n)})$")
    return fig


def distance_map(distances: Mapping[str, pd.DataFrame]) -> Figure:
    """Heat map of d over first layer l and block size n, rescaled to [0, 1] for each n (paper, figure 4).

    A few blocks far above the others (those with layer 0) do not take the scale: see ``rescaled``.
    """
    fig, axes = panel_grid(len(distances), most=4, height=2.3)
    for ax, (model, frame) in zip(axes, distances.items(), strict=True):
        cells, best = rescaled(frame), closest(frame)
        mesh = ax.pcolormesh(
            cells.columns, cells.index, np.ma.masked_invalid(cells), cmap="viridis_r", vmin=0, vmax=1
        )
        ax.plot(best["first"], best["n"], "k.", ms=3, label=r"$\ell^*(n)$")
        ax.set(title=model if len(distances) > 1 else "")
        ax.grid(False)
        whole_numbers(ax.xaxis, ax.yaxis)
    axes[0].legend(loc="upper right")
    fig.supxlabel(FIRST)
    fig.supylabel(SIZE)
    scale = "distance, rescaled for each $n$"
    fig.colorbar(mesh, ax=list(axes), pad=0.02, aspect=25, extend="max", label=scale)
    return fig


def closest(frame: pd.DataFrame) -> pd.DataFrame:
    """The row of l*(n), where the distance is smallest, for each n < L (ties to the smaller l)."""
    frame = _removable(frame).sort_values(["n", "first"])
    return frame.loc[frame.groupby("n")["distance"].idxmin()]


def rescaled(frame: pd.DataFrame) -> pd.DataFrame:
    """Distances as a matrix (index n, columns first; NaN where no block fits), each row mapped to [0, 1]: 0
    is its least distance, 1 its greatest or, if that is nearer, four times as far from the least as its
    median is. What is farther is above 1."""
    matrix = _removable(frame).pivot(index="n", columns="first", values="distance")
    low, span = matrix.min(axis=1), matrix.max(axis=1) - matrix.min(axis=1)
    robust = 4 * (matrix.median(axis=1) - low)
    span = span.where((robust == 0) | (robust > span), robust)
    return matrix.sub(low, axis=0).div(span.replace(0, 1), axis=0)


def _removable(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the block of all L layers, which would leave nothing."""
    return frame[frame["n"] < frame["n"].max()]
