"""Figures that set strategies, healing recipes or prompts of one model against each other."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ...layout import PRUNED
from ..metrics import chance
from .curves import add_legend, common_legend, curve, legend_entry, references
from .panels import label_axes, panel_grid, panels, removed_label, row_height
from .select import Selection
from .style import GREY, LEVEL_STYLES, label, line_style, shades, strategy_style


def strategies(selection: Selection) -> Figure:
    """The strategies against each other for one model, un-healed and healed (paper, figures 1d and 5)."""
    table, model, treatments = selection.table, selection.model, selection.treatments
    metrics, compared = selection.metrics, selection.of_model(model).strategies
    fig, axes = panels(len(metrics), len(treatments), row_height(metrics), sharex=True, sharey="row")
    drawn: set[str] = set()
    for row, metric in zip(axes, metrics, strict=True):
        for ax, treatment in zip(row, treatments, strict=True):
            for strategy in reversed(compared):  # the first on top, inside the larger marks of the others
                rows = selection.curve(model, strategy, treatment)
                curve(ax, rows, metric, **strategy_style(table, strategy, treatment))
            drawn |= references(ax, selection, [model], metric)
    label_axes(axes, map(label, treatments), map(label, metrics))
    entries = [legend_entry(name, **strategy_style(table, name, treatments[-1])) for name in compared]
    add_legend(fig, [*entries, *common_legend(selection, treatments, drawn)])
    return fig


def recipes(selection: Selection) -> Figure:
    """Healing recipes of one model against each other: seeds, LoRA ranks, ... (paper, figures 8 and 9).

    A panel for each metric, and again for each strategy, unless one is asked for.
    """
    model, metrics = selection.model, selection.metrics
    selection = selection.of_model(model)
    compared = selection.recipes
    pairs = [(strategy, metric) for strategy in selection.strategies for metric in metrics]
    fig, axes = panel_grid(len(pairs), most=min(4, len(metrics)), height=1.8)
    colours = zip([PRUNED, *compared], [GREY, *shades(len(compared))], strict=True)
    styles = {treatment: line_style(colour, treatment) for treatment, colour in colours}
    drawn: set[str] = set()
    for ax, (strategy, metric) in zip(axes, pairs, strict=True):
        for treatment, style in styles.items():
            curve(ax, selection.curve(model, strategy, treatment), metric, **style)
        drawn |= references(ax, selection, [model], metric)
        title = strategy if len(selection.strategies) > 1 else ""
        ax.set(xlabel=removed_label(ax), ylabel=label(metric), title=title)
    entries = [legend_entry(label(treatment), **style) for treatment, style in styles.items()]
    add_legend(fig, [*entries, *common_legend(selection, compared, drawn)])
    return fig


def prompts(selection: Selection) -> Figure:
    """One task of one model as several suites ask it: examples in other orders, or fewer of them (paper,
    figure 7). The selected metrics are the task's columns, a curve each."""
    model, metrics, treatments = selection.model, selection.metrics, selection.treatments
    task = common_end(metrics)
    fig, axes = panels(1, len(treatments), height=2.0 + 0.05 * len(metrics), sharey=True)
    colours = dict(zip(metrics, shades(len(metrics)), strict=True))
    for ax, treatment in zip(axes[0], treatments, strict=True):
        for metric, colour in colours.items():
            rows = selection.curve(model, selection.strategy, treatment)
            curve(ax, rows, metric, **line_style(colour, treatment))
        level = chance(selection.levels, model, metrics[0])
        if level is not None:
            ax.axhline(level, zorder=1, **LEVEL_STYLES["chance"])
    label_axes(axes, map(label, treatments), [label(task)])
    entries = [
        legend_entry(label(metric.removesuffix(f"_{task}")), **line_style(colour, treatments[-1]))
        for metric, colour in colours.items()
    ]
    add_legend(fig, [*entries, *common_legend(selection, treatments, ["chance"])])
    return fig


def common_end(names: Sequence[str]) -> str:
    """The words that all ``names`` end with: of ``a_mmlu`` and ``b_1_mmlu`` it is ``mmlu``."""
    shared = []
    for words in zip(*(name.split("_")[::-1] for name in names), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return "_".join(reversed(shared))
