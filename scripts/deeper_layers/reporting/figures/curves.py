"""Curves of a metric against the part of the layers removed, their reference lines and the legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...layout import PRUNED
from ..metrics import is_loss, unpruned
from .panels import removed_axis
from .select import Selection
from .style import CONTROL, GREY, INK, LEVEL_STYLES, STYLE, crowded

ABOVE = "may lie above the data"


def curve(ax: Axes, rows: pd.DataFrame, metric: str, **style) -> None:
    """Draw a metric against the percentage of layers removed, with its band. A healed model that was not cut
    is a control: drawn apart, as a diamond at 0.

    Args:
        ax: where to draw.
        rows: the rows of one model, strategy and treatment.
        metric: the metric's column.
        style: a ``style.line_style``.
    """
    rows = rows.dropna(subset=metric).sort_values("n")
    is_control = (rows["n"] == 0) & (rows["treatment"] != PRUNED)
    x, y, stderr = 100 * rows["fraction_removed"], rows[metric], rows[f"{metric}_stderr"]
    cut, size = ~is_control, crowded(len(rows)) * style["markersize"]
    ax.plot(x[cut], y[cut], **style | {"markersize": size})
    band(ax, x[cut], y[cut], stderr[cut], style["color"])
    if is_control.any():
        at_0 = x[is_control], y[is_control], stderr[is_control]
        ax.errorbar(*at_0, color=style["color"], zorder=3, **CONTROL)
    if len(rows):
        removed_axis(ax, int(rows["n_layers"].iloc[0]))


def band(ax: Axes, x: pd.Series, y: pd.Series, stderr: pd.Series, colour) -> None:
    """± 1 standard error about a curve; nothing where it is not known."""
    ax.fill_between(x, y - stderr, y + stderr, color=colour, alpha=0.2, linewidth=0)


def references(ax: Axes, selection: Selection, models: Sequence[str], metric: str) -> set[str]:
    """Draw a panel's levels and, if it shows a single model, its unpruned score; returns what was drawn.

    The axis spans the data and the levels, but of a loss not chance, which is far above: see ``add_legend``.
    """
    table, levels = selection.table, selection.levels
    known = levels[levels["model"].isin(models) & (levels["metric"] == metric)]
    lines = {(row.level, row.value) for row in known.itertuples()}
    if len(models) == 1:
        lines.add(("unpruned", unpruned(table, models[0])[metric]))
    for name, value in sorted(lines):
        if name == "chance" and is_loss(table, metric):
            across = ax.get_yaxis_transform()
            line = Line2D([0, 1], [value, value], transform=across, zorder=1, gid=ABOVE, **LEVEL_STYLES[name])
            ax.add_artist(line)
        else:
            ax.axhline(value, zorder=1, **LEVEL_STYLES[name])
    return {name for name, _ in lines}


def add_legend(figure: Figure, entries: Sequence[Artist]) -> None:
    """The legend above all panels: as few lines as fit the width, equally long. All is drawn by now: chance
    that lies above the data of a panel is written at its edge."""
    for ax in figure.axes:
        _write_chance_above(ax)
    dashes = [line for ax in figure.axes for line in ax.get_lines() if line.get_linestyle() == "--"]
    entries = [entry for entry in entries if dashes or entry.get_label() != "chance"]
    names = [len(entry.get_label()) for entry in entries]
    em = STYLE["legend.fontsize"]
    for lines in range(1, len(entries) + 1):
        columns = math.ceil(len(entries) / lines)
        widths = [part.max() for part in np.array_split(names, columns)]  # as legend() fills them
        # Around each name: line 2.4 em, gap 0.8, space to the next 1.4; a letter is about 0.53 em.
        if sum(4.6 + 0.53 * width for width in widths) * em <= 72 * figure.get_figwidth():
            break
    figure.legend(handles=entries, loc="outside upper center", ncols=columns)


def _write_chance_above(ax: Axes) -> None:
    """Write at the upper edge what lies above it."""
    lines = [line for line in ax.get_lines() if line.get_gid() == ABOVE]
    outside = [line for line in lines if line.get_ydata()[0] > ax.get_ylim()[1]]
    if not outside:
        return
    values = [line.get_ydata()[0] for line in outside]
    for line in outside:
        line.remove()
    text = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))
    style = {"ha": "left", "va": "top", "fontsize": 5.5, "color": GREY}
    ax.text(0.03, 0.99, f"chance {text} \u2191", transform=ax.transAxes, **style)


def legend_entry(name: str, **style) -> Line2D:
    """An entry of a legend with a line or marker of this style."""
    return Line2D([], [], label=name, **style)


def band_entry(name: str, colour=INK) -> Patch:
    """An entry of a legend for a band."""
    return Patch(facecolor=colour, alpha=0.2, linewidth=0, label=name)


def common_legend(
    selection: Selection, treatments: Sequence[str], drawn: Iterable[str], colour=INK
) -> list[Artist]:
    """Legend entries of what most figures share: the control if there is one, the band, the levels drawn."""
    table = selection.table
    controls = table[(table["n"] == 0) & table["treatment"].isin(set(treatments) - {PRUNED})]
    entries = [] if controls.empty else [legend_entry("healed, not cut", color=colour, **CONTROL)]
    entries.append(band_entry("± 1 standard error", colour))
    return entries + [legend_entry(name, **LEVEL_STYLES[name]) for name in LEVEL_STYLES if name in set(drawn)]
