"""Figures of which layers strategies remove, and whether the distance chooses well."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ...layout import PRUNED
from ...pruning.layer_set import LayerSet
from ..metrics import unpruned
from .curves import add_legend, legend_entry
from .panels import panel_grid, panels, whole_numbers
from .select import Selection
from .style import INK, crowded, label, line_style, strategy_colour

EQUAL_N = {"color": "#bbbbbb", "linewidth": 0.8, "zorder": 1}


def layer_map(selection: Selection) -> Figure:
    """Which layers each strategy removes from one model as n grows: coloured layers are gone."""
    table, model = selection.table, selection.model
    strategies = selection.of_model(model).strategies
    fig, axes = panel_grid(len(strategies), most=4, height=1.9)
    for ax, strategy in zip(axes, strategies, strict=True):
        rows = selection.curve(model, strategy, PRUNED).query("n > 0")
        runs = [
            (n, *run)
            for n, name in zip(rows["n"], rows["block"], strict=True)
            for run in LayerSet.parse(name).runs
        ]
        removed = pd.DataFrame(runs, columns=["n", "first", "last"])
        n_layers = rows["n_layers"].iloc[0]
        colour = strategy_colour(table, strategy)
        ax.barh(rows["n"], n_layers, left=-0.5, height=0.8, color="#e4e4e4")
        lengths = removed["last"] - removed["first"] + 1
        ax.barh(removed["n"], lengths, left=removed["first"] - 0.5, height=0.8, color=colour)
        ax.set(title=strategy, xlabel="layer", ylabel="layers removed, $n$", xlim=(-0.5, n_layers - 0.5))
        ax.margins(y=0.02)
        ax.grid(False)
        ax.label_outer()
        whole_numbers(ax.xaxis)
        ns = sorted(rows["n"].unique())
        ax.set_yticks(ns[:: math.ceil(len(ns) / 12)])  # at bars, of which there may be gaps between
    return fig


def distance_loss(selection: Selection) -> Figure:
    """Does the distance choose well? What each cut of one model costs in loss, against its distance.

    Grey lines join blocks of equal n: where they rise, the closer block was the better one.
    """
    metric, model = selection.loss("loss"), selection.model
    selection = selection.of_model(model)
    strategies, treatments = selection.strategies, selection.treatments
    cuts = selection.table.query("n > 0")
    cuts = cuts.assign(lost=cuts[metric] - unpruned(selection.table, model)[metric])
    fig, axes = panels(1, len(treatments), height=2.6, sharex=True)
    shade = ScalarMappable(Normalize(1, selection.table["n"].max()), "viridis")
    for ax, treatment in zip(axes[0], treatments, strict=True):
        rows = cuts[cuts["treatment"] == treatment]
        for _, same in rows.groupby("n"):
            ax.plot(same["distance"], same["lost"], **EQUAL_N)
        for strategy in reversed(strategies):
            chosen = rows[rows["strategy"] == strategy]
            colours = shade.to_rgba(chosen["n"])
            size, faces = (10, colours) if strategy == strategies[0] else (22, "white")
            size *= crowded(len(chosen)) ** 2
            marks = {"s": size, "facecolors": faces, "edgecolors": colours, "linewidths": 0.8}
            ax.scatter(chosen["distance"], chosen["lost"], **marks)
        rank, better, rivals = choice_quality(rows)
        note = f"rank correlation {rank:.2f}\ncloser is better for {better} of {rivals} $n$"
        ax.text(0.5, 1.02, note, transform=ax.transAxes, ha="center", va="bottom", fontsize=6)
        ax.set_title(label(treatment), pad=19)
        ax.set_xlabel("angular distance of block")
    axes[0, 0].set_ylabel("loss added (nats)")
    bar = fig.colorbar(shade, ax=list(axes[0]), location="bottom", label="layers removed, $n$", aspect=40)
    whole_numbers(bar.ax.xaxis)
    entries = []
    for strategy in strategies:
        style = line_style(INK, treatments[-1], hollow=strategy != strategies[0])
        entries.append(legend_entry(strategy, **style | {"linestyle": ""}))
    add_legend(fig, [*entries, legend_entry("equal $n$", **EQUAL_N)])
    return fig


def choice_quality(rows: pd.DataFrame) -> tuple[float, int, int]:
    """Whether the closer block is the better one.

    Args:
        rows: rows with n, block, distance and the loss added, ``lost``.

    Returns:
        Spearman's rank correlation over all blocks; of the n for which strategies chose different blocks,
        how many lost least with the closest, and how many there are.
    """
    blocks = rows.dropna(subset=["distance"]).drop_duplicates("block")  # blocks with gaps have none
    rank = blocks[["distance", "lost"]].rank().corr().iloc[0, 1]
    rivals = [same for _, same in blocks.groupby("n") if len(same) > 1]
    return rank, sum(same["distance"].idxmin() == same["lost"].idxmin() for same in rivals), len(rivals)
