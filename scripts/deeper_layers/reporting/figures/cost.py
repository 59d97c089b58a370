"""Figures of what a cut saves."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...errors import UserError
from ...layout import PRUNED
from ..metrics import is_loss, unpruned
from .curves import add_legend, band_entry, legend_entry
from .panels import label_axes, panels, removed_axis, row_height
from .select import Selection, with_values
from .style import GREY, INK, LEVEL_STYLES, label, line_style, measured_style, model_colour

LAW = {"color": GREY, "linestyle": "--", "linewidth": 0.9}
FRONT = {"color": INK, "linewidth": 0.7, "linestyle": ":"}
BETTER = {"decode": 1, "memory": -1}  # whether more or less of it is better


def speed(measured: pd.DataFrame) -> Figure:
    """What is left of one model's time per token, memory and size on disk, against the fraction removed.

    The dashed line is the law that the paper states: in proportion to the layers. What runs besides the
    layers (embeddings, head, the program itself) keeps a curve above it.

    Args:
        measured: the model's speed.csv, a row per block.
    """
    measured = measured.groupby("n").mean(numeric_only=True)  # over the blocks of equal n
    full = measured.loc[0]
    x = 100 * measured["fraction_removed"]
    fig, axes = panels(1, 2, height=2.1, sharex=True, sharey=True)
    times = {"prefill": "time a token, prompt", "decode": "time a token, new"}
    sizes = {"memory_bytes": "memory", "bytes": "weights on disk"}
    styles = {name: measured_style(i) for i, name in enumerate([*times, *sizes])}
    for name in times:
        low, middle, high = (100 * full[name] / measured[name + end] for end in ("_high", "", "_low"))
        axes[0, 0].plot(x, middle, **styles[name])
        axes[0, 0].fill_between(x, low, high, color=styles[name]["color"], alpha=0.2, linewidth=0)
    for name in sizes:
        axes[0, 1].plot(x, 100 * measured[name] / full[name], **styles[name])
    for ax in axes[0]:
        ax.plot([0, 100], [100, 0], zorder=1, **LAW)
        ax.set(xlim=(-2, x.max() + 2), ylim=(0, None))
        removed_axis(ax, int(full["n_layers"]))
    label_axes(axes, ["time", "memory"], ["of the unpruned model (%)"])
    entries = [legend_entry(text, **styles[name]) for name, text in (times | sizes).items()]
    entries += [legend_entry("in proportion to layers", **LAW), band_entry("quartiles of the runs")]
    add_legend(fig, entries)
    return fig


def pareto(selection: Selection) -> Figure:
    """Which n is worth it: quality of every cut of one model against its speed and its memory.

    The line joins the cuts on the Pareto front, with their n. A row of panels for each metric; unless they
    are asked for, metrics are omitted at which the unpruned model is within 3 standard errors of chance, if
    it is better at any.
    """
    model, treatments = selection.model, selection.treatments
    if "decode" not in selection.table:
        raise UserError("the table has no speed: this figure needs study.speed: true")
    full = unpruned(selection.table, model)
    metrics = selection.above_chance(model) or selection.metrics
    fig, axes = panels(len(metrics), 2, row_height(metrics), sharex="col", sharey="row")
    styles = {t: line_style(model_colour(selection.table, model), t) | {"linestyle": ""} for t in treatments}
    rows = _relative_cost(with_values(selection.table, model=model), full, treatments)
    for line, metric in zip(axes, metrics, strict=True):
        line[0].set_ylabel(label(metric))
        for ax, column in zip(line, BETTER, strict=True):
            for treatment, style in styles.items():
                cuts = rows[rows["treatment"] == treatment]
                ax.plot(cuts[column], cuts[metric], **style, alpha=0.8)
            _draw_front(ax, rows, column, metric, -1 if is_loss(rows, metric) else 1)
            ax.axhline(full[metric], zorder=1, **LEVEL_STYLES["unpruned"])
            ax.margins(x=0.08, y=0.12)
    for ax, name in zip(axes[-1], ["writing speed\n(unpruned: 1)", "memory\n(% of unpruned)"], strict=True):
        ax.set_xlabel(name)
    axes[-1, 1].invert_xaxis()  # for both, better is to the right; the panels above share it
    entries = [legend_entry(label(treatment), **style) for treatment, style in styles.items()]
    entries += [legend_entry("not beaten in both, with $n$", **FRONT)]
    add_legend(fig, [*entries, legend_entry("unpruned", **LEVEL_STYLES["unpruned"])])
    return fig


def _relative_cost(rows: pd.DataFrame, full: pd.Series, treatments: list[str]) -> pd.DataFrame:
    """The cuts of these treatments and the full model, un-healed, with decoding speed (1: the unpruned
    model's) and ``memory`` in per cent of the unpruned model's."""
    rows = rows[rows["treatment"].isin(treatments) & ((rows["n"] > 0) | (rows["treatment"] == PRUNED))]
    return rows.assign(
        decode=rows["decode"] / full["decode"], memory=100 * rows["memory_bytes"] / full["memory_bytes"]
    )


def _draw_front(ax: Axes, rows: pd.DataFrame, column: str, metric: str, sign: int) -> None:
    """Join the cuts that are not beaten, with their n; ``sign`` is -1 for a metric that is better when
    smaller."""
    chosen = rows[front(BETTER[column] * rows[column], sign * rows[metric])].sort_values(column)
    ax.plot(chosen[column], chosen[metric], zorder=1.5, **FRONT)
    for row in chosen.drop_duplicates("n").itertuples():
        point, style = (getattr(row, column), getattr(row, metric)), {"ha": "center", "fontsize": 5.5}
        ax.annotate(row.n, point, (0, 3.5), textcoords="offset points", **style)


def front(first: pd.Series, second: pd.Series) -> pd.Series:
    """Which of the points (first, second) no other one is at least as good as in both and better in one."""
    a, b = first.to_numpy(), second.to_numpy()
    at_least = (a[:, None] >= a) & (b[:, None] >= b)
    better = (a[:, None] > a) | (b[:, None] > b)
    return pd.Series(~(at_least & better).any(axis=0), index=first.index)
