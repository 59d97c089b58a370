"""The figure of what is lost for the layers that go."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...pruning.layer_set import LayerSet
from ..metrics import omitted
from ..tradeoff import best_cuts, compromise, control, find_break, parts
from .curves import add_legend, legend_entry
from .panels import label_axes, panels, removed_axis
from .select import Selection
from .style import CONTROL, GREY, INK, crowded, label, metric_style, strategy_colour

LOSSES = (1, 5, 10, 20)  # per cent that the lines on the right allow to lose
TOLERANCE = {"color": "#bdbdbd", "linewidth": 0.6, "zorder": 1}
EQUAL_SHARES = {"color": GREY, "linestyle": (0, (1, 1.6)), "linewidth": 0.9, "zorder": 1}
BREAK = {"linewidth": 4.5, "alpha": 0.25, "solid_capstyle": "butt", "zorder": 1.5}
ADVISED = {"color": INK, "linewidth": 0.7, "linestyle": (0, (6, 2)), "zorder": 1.2}


def trade_off(selection: Selection) -> Figure:
    """What the best cut of each n of one model retains of every metric, and which layers it lacks; un-healed
    and healed. Metrics of which that means nothing (see ``metrics.omitted``) are only named.
    """
    table, model, treatments = selection.table, selection.model, selection.treatments
    reasons = omitted(table, selection.levels, model)
    metrics = [metric for metric in selection.metrics if reasons.get(metric, "") is None]
    every = parts(table, selection.levels, model, uncut=True)
    cuts = every[every["n"] > 0]
    share = {"sharex": "col", "sharey": "row", "height_ratios": [2.4, 1]}
    fig, axes = panels(2, len(treatments), height=1.85, least=2.2, **share)
    chosen: set[str] = set()
    for (curves, layers), treatment in zip(axes.T, treatments, strict=True):
        rows = cuts[cuts["treatment"] == treatment] if metrics else cuts.iloc[:0]
        if not rows.empty:
            best = best_cuts(rows)
            uncut = control(every, treatment)
            for metric in metrics:
                style = metric_style(table, metric, treatment)
                _draw_part(curves, best, metric, **style)
                if not uncut.empty:
                    value, stderr = (100 * uncut[f"retained_{metric}{end}"] for end in ("", "_stderr"))
                    curves.errorbar([0], value, stderr, color=style["color"], zorder=3, **CONTROL)
            _draw_layers(layers, table, best)
            for ax in (curves, layers):
                ax.axvline(100 * compromise(best)["fraction_removed"], **ADVISED)
            chosen |= set(best["strategy"])
        curves.plot([0, 100], [100, 0], **EQUAL_SHARES)
        curves.grid(False)
        for loss in LOSSES:
            curves.axhline(100 - loss, **TOLERANCE)
    _name_losses(axes[0, -1])
    n_layers = int(table.loc[table["model"] == model, "n_layers"].iloc[0])
    axes[0, 0].set_ylim(-4, max(104, axes[0, 0].get_ylim()[1]))
    axes[1, 0].set_ylim(-0.5, n_layers - 0.5)
    farthest = 100 * cuts["fraction_removed"].max() + 100 / n_layers
    for ax in axes[1]:
        ax.set_xlim(-1.5, farthest)
        removed_axis(ax, n_layers)
    label_axes(axes, map(label, treatments), ["retained (%)", "layers removed\nby the best cut"])
    _name_omitted(fig, [metric for metric in selection.metrics if metric not in metrics])
    entries = [
        legend_entry(label(metric).split(" (")[0], **metric_style(table, metric, treatments[-1]))
        for metric in metrics
    ]
    entries += [
        Patch(color=strategy_colour(table, name), label=name)
        for name in selection.strategies
        if name in chosen
    ]
    entries += [legend_entry("break", color=INK, **BREAK), legend_entry("equal shares", **EQUAL_SHARES)]
    entries.append(legend_entry("best compromise", **ADVISED))
    if any(not control(every, treatment).empty for treatment in treatments):
        entries.append(legend_entry("healed, not cut", color=INK, **CONTROL))
    add_legend(fig, entries)
    return fig


def _draw_part(ax: Axes, best: pd.DataFrame, metric: str, **style) -> None:
    """What is retained of a metric, ± 1 standard error, from the unpruned model on; what is worse than
    nothing is nothing. A broad pale line is where the curve breaks."""
    rows = best.dropna(subset=f"retained_{metric}")
    part, stderr = (100 * rows[f"retained_{metric}{end}"] for end in ("", "_stderr"))
    low, middle, high = ([100, *one.clip(lower=0)] for one in (part - stderr, part, part + stderr))
    x, y = np.array([0, *(100 * rows["fraction_removed"])]), np.array(middle)
    size = style["markersize"] * crowded(len(x))
    ax.errorbar(x, y, (y - low, high - y), elinewidth=0.6, **style | {"markersize": size})
    if at := find_break(best, metric):
        step = [i for i, n in enumerate([0, *rows["n"]]) if at.before <= n <= at.after]
        ax.plot(x[step], y[step], color=style["color"], **BREAK)


def _draw_layers(ax: Axes, table: pd.DataFrame, best: pd.DataFrame) -> None:
    """The layers of each cut as a column, coloured by the strategy that chose it."""
    n_layers = best["n_layers"].iloc[0]
    width = 0.8 * 100 / n_layers
    x = 100 * best["fraction_removed"]
    ax.bar(x, n_layers, width, bottom=-0.5, color="#e4e4e4")
    for at, name, strategy in zip(x, best["block"], best["strategy"], strict=True):
        for first, last in LayerSet.parse(name).runs:
            colour = strategy_colour(table, strategy)
            ax.bar(at, last - first + 1, width, bottom=first - 0.5, color=colour)
    ax.grid(False)


def _name_losses(ax: Axes) -> None:
    """At the right edge, the losses that the lines allow."""
    style = {"xycoords": ax.get_yaxis_transform(), "fontsize": 4.5, "color": GREY}
    for loss in LOSSES:
        side = "bottom" if loss == min(LOSSES) else "center"  # which are near each other
        ax.annotate(f"−{loss} %", (1.01, 100 - loss), va=side, **style)


def _name_omitted(figure: Figure, metrics: list[str]) -> None:
    """Below all panels, what is not shown."""
    if metrics:
        names = ", ".join(label(metric).split(" (")[0] for metric in metrics)
        figure.supxlabel(f"Not shown, see the summary: {names}", fontsize=5.5, color=GREY, x=0.01, ha="left")
