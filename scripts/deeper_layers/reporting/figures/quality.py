"""Figures of quality against the part of the layers removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...errors import UserError
from ...layout import PRUNED
from ..metrics import is_loss, unpruned
from ..metrics import metrics as metrics_of
from ..metrics import retained as retained_part
from .curves import add_legend, common_legend, curve, legend_entry, references
from .panels import label_axes, panel_grid, panels, removed_label
from .select import Selection, with_values
from .style import INK, LEVEL_STYLES, label, line_style, metric_style, model_colour


def healing(selection: Selection) -> Figure:
    """Every metric against the fraction of layers removed, healed and un-healed (paper, figures 2, 3, 6).

    A panel for each family and metric. A diamond at 0 is the full model after the same healing: what more
    training alone does.
    """
    table, families, treatments = selection.table, selection.families, selection.treatments
    fig, axes = _family_panels(families, selection.metrics)
    drawn: set[str] = set()
    for row, family in zip(axes, families, strict=True):
        for ax, metric in zip(row, selection.metrics, strict=True):
            for model in family:
                for treatment in treatments:
                    rows = selection.curve(model, selection.strategy, treatment)
                    curve(ax, rows, metric, **line_style(model_colour(table, model), treatment))
            drawn |= references(ax, selection, family, metric)
        for ax in row:
            ax.set_xlabel(removed_label(ax) if ax.get_subplotspec().is_last_row() else "")
        if len(family) > 1:
            row[0].legend(handles=[legend_entry(m, color=model_colour(table, m)) for m in family])
    colour = model_colour(table, families[0][0]) if len(selection.models) == 1 else INK
    entries = [legend_entry(label(treatment), **line_style(colour, treatment)) for treatment in treatments]
    add_legend(fig, [*entries, *common_legend(selection, treatments, drawn, colour)])
    return fig


def quality(selection: Selection) -> Figure:
    """Every metric against the fraction of layers removed, of a study that heals nothing."""
    return healing(selection)


def _family_panels(families: Sequence[Sequence[str]], metrics: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [family, metric]: families side by side while they fit, else below each other."""
    labels = [label(metric) for metric in metrics]
    names = [family[0] if len(family) == 1 else "" for family in families]
    if len(families) == 1:
        fig, axes = panel_grid(len(metrics), most=4, height=1.8)
        for ax, name in zip(axes, labels, strict=True):
            ax.set_ylabel(name)
        return fig, axes[None]
    if len(families) <= 4:
        fig, axes = panels(len(metrics), len(families), height=1.45, sharex="col", sharey="row")
        label_axes(axes, titles=names, names=labels)
        return fig, axes.T
    fig, axes = panels(len(families), len(metrics), height=1.25, sharex=True, sharey="col")
    label_axes(axes, titles=labels, names=names)
    return fig, axes


def loss(selection: Selection) -> Figure:
    """Held-out loss over ln V before and after healing, all models together, chance = 1 (paper, figure 3)."""
    table, models, treatments = selection.table, selection.models, selection.treatments
    metric = selection.loss("normalised_loss")
    fig, axes = panels(1, len(treatments), height=1.85 + 0.05 * len(models), sharey=True)
    for ax, treatment in zip(axes[0], treatments, strict=True):
        for model in models:
            rows = selection.curve(model, selection.strategy, treatment)
            curve(ax, rows, metric, **line_style(model_colour(table, model), treatment))
        drawn = references(ax, selection, models, metric)
    label_axes(axes, map(label, treatments), [label(metric)])
    styles = {model: line_style(model_colour(table, model), treatments[-1]) for model in models}
    entries = [legend_entry(model, **style) for model, style in styles.items()]
    add_legend(fig, [*entries, *common_legend(selection, treatments, drawn)])
    return fig


def retained(selection: Selection) -> Figure:
    """What is left of each metric: 100 % is the unpruned model; 0 % is chance, or twice the loss. A row of
    panels for each model.

    Unless they are asked for, metrics are omitted at which the unpruned model is within 3 standard errors of
    chance, or whose chance is not known.
    """
    table, models, treatments = selection.table, selection.models, selection.treatments
    fig, axes = panels(len(models), len(treatments), height=1.8, sharex=True, sharey=True)
    shown = {model: selection.above_chance(model) for model in models}
    for row, model in zip(axes, models, strict=True):
        for ax, treatment in zip(row, treatments, strict=True):
            for metric in shown[model]:
                rows = _retained_percent(selection, model, treatment, metric)
                curve(ax, rows, metric, **metric_style(table, metric, treatment))
            for level, height in {"unpruned": 100, "chance": 0}.items():
                ax.axhline(height, zorder=1, **LEVEL_STYLES[level])
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(low, -25), min(high, 130))
    names = ["retained (%)"] if len(models) == 1 else [f"{model}\nretained (%)" for model in models]
    label_axes(axes, map(label, treatments), names)
    drawn = {metric for metrics in shown.values() for metric in metrics}
    entries = [
        legend_entry(label(metric).split(" (")[0], **metric_style(table, metric, treatments[-1]))
        for metric in Selection.of(table, selection.levels).metrics
        if metric in drawn  # per cent, not nats
    ]
    entries += common_legend(selection, treatments, ["unpruned"])
    add_legend(fig, [*entries, legend_entry("nothing left", **LEVEL_STYLES["chance"])])
    return fig


def _retained_percent(selection: Selection, model: str, treatment: str, metric: str) -> pd.DataFrame:
    """The rows of a curve, with the metric and its standard error in per cent of what the unpruned model
    has."""
    rows, full = selection.curve(model, selection.strategy, treatment), unpruned(selection.table, model)
    level = selection.chance(model, metric)
    rows = retained_part(rows, metric, full, level, is_loss(selection.table, metric))
    return rows.assign(**{name: 100 * rows[name] for name in (metric, f"{metric}_stderr")})


def published(selection: Selection) -> Figure:
    """Ours on the paper's: every metric that its figures 2 and 5 have, healed and un-healed, at our n.

    A panel for each model and metric; the paper's values are the broad grey lines.
    """
    table, strategy, treatments = selection.table, selection.strategy, selection.treatments
    pairs = [
        (model, metric)
        for model in selection.models
        for metric in selection.metrics
        if metric in _published_metrics(with_values(table, model=model, strategy=strategy))
    ]
    if not pairs:
        raise UserError(f"the table has no published value of the strategy {strategy} beside one of ours")
    fig, axes = panel_grid(len(pairs), most=4, height=1.8)
    drawn: set[str] = set()
    for ax, (model, metric) in zip(axes, pairs, strict=True):
        for treatment in treatments:
            rows = selection.curve(model, strategy, treatment).sort_values("n")
            theirs = rows.dropna(subset=f"{metric}_published")
            x = 100 * theirs["fraction_removed"]
            ax.plot(x, theirs[f"{metric}_published"], **_paper_style(treatment))
            curve(ax, rows, metric, **line_style(model_colour(table, model), treatment))
        drawn |= references(ax, selection, [model], metric)
        ax.set(title=model, xlabel=removed_label(ax), ylabel=label(metric))
    models = list(dict.fromkeys(model for model, _ in pairs))
    colour = model_colour(table, models[0]) if len(models) == 1 else INK
    entries = [legend_entry(f"ours, {label(t)}", **line_style(colour, t)) for t in treatments]
    entries += [legend_entry(f"paper's, {label(t)}", **_paper_style(t)) for t in treatments]
    add_legend(fig, [*entries, *common_legend(selection, treatments, drawn, colour)])
    return fig


def _paper_style(treatment: str) -> dict:
    """Broad and pale, under our curves, with their kinds of line."""
    line = (0, (1, 0.6)) if treatment == PRUNED else "-"
    return {"color": "#c4c4c4", "linewidth": 3, "linestyle": line, "zorder": 1.5}


def _published_metrics(rows: pd.DataFrame) -> list[str]:
    """The metrics of which some row has a published value."""
    columns = {metric: f"{metric}_published" for metric in metrics_of(rows)}
    return [metric for metric, column in columns.items() if column in rows and rows[column].notna().any()]
