"""The figures: each function takes data frames and returns a matplotlib Figure (see plots.py for the look).

``table`` and ``levels`` are those of table.py; ``distances`` maps each model to its distances.csv (first, n,
distance, stderr). Options left out take the table's first strategy, first recipe and all metrics but
those that say the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import plots
from .blocks import Block
from .errors import UserError
from .plots import FRACTION, INK, label, look
from .table import PRUNED
from .table import metrics as all_metrics

FIGURES: dict[str, Callable[..., Figure]] = {}


def figure(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Register a figure under its function's name, written with dashes, and draw it in our style."""

    @wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(plots.STYLE):
            return draw(*args, **kwargs)

    FIGURES[draw.__name__.replace("_", "-")] = styled
    return styled


# Distances


@figure
def distance_curves(distances: Mapping[str, pd.DataFrame]) -> Figure:
    """Angular distance d against the first layer l, a curve for each n, l*(n) in black (paper, figure 1c)."""
    fig, axes = plots.wrapped(len(distances), most=2, height=2.4, one=plots.COLUMN)
    for ax, (model, frame) in zip(axes, distances.items(), strict=True):
        shade = ScalarMappable(Normalize(1, max(2, frame["n"].max() - 1)), "viridis")
        for n, rows in _removable(frame).groupby("n"):
            ax.plot(rows["first"], rows["distance"], color=shade.to_rgba(n), lw=0.9, marker="o", ms=1.4)
            plots.band(ax, rows["first"], rows["distance"], rows["stderr"], shade.to_rgba(n))
        best = closest(frame)
        ax.plot(best["first"], best["distance"], "k.-", lw=0.8, ms=4, label=r"$\ell^*(n)$", zorder=5)
        ax.set(title=model if len(distances) > 1 else "", ylim=(0, None))
        ax.set_xlabel(r"first layer of the block, $\ell$")
        ax.set_ylabel(r"angular distance $d(x^{(\ell)},\, x^{(\ell+n)})$")
        bar = fig.colorbar(shade, ax=ax, pad=0.02, aspect=25, label="layers in the block, $n$")
        plots.whole_numbers(ax.xaxis, bar.ax.yaxis)
    axes[0].legend()
    return fig


@figure
def distance_map(distances: Mapping[str, pd.DataFrame]) -> Figure:
    """Heat map of d over first layer l and block size n, rescaled to [0, 1] within each n (paper, figure 4)."""
    fig, axes = plots.wrapped(len(distances), most=4, height=2.3)
    for ax, (model, frame) in zip(axes, distances.items(), strict=True):
        cells, best = rescaled(frame), closest(frame)
        mesh = ax.pcolormesh(
            cells.columns,
            cells.index,
            np.ma.masked_invalid(cells),
            **{"cmap": "viridis_r", "vmin": 0, "vmax": 1, "edgecolors": "face", "linewidth": 0.1},
        )
        ax.plot(best["first"], best["n"], "k.", ms=3, label=r"$\ell^*(n)$")
        ax.set(title=model if len(distances) > 1 else "")
        ax.set(xlabel=r"first layer of the block, $\ell$", ylabel="layers in the block, $n$")
        ax.grid(False)
        plots.whole_numbers(ax.xaxis, ax.yaxis)
    axes[0].legend(loc="upper right")
    fig.colorbar(mesh, ax=list(axes), pad=0.02, aspect=25, label="distance, rescaled for each $n$")
    return fig


def closest(frame: pd.DataFrame) -> pd.DataFrame:
    """The row of l*(n), where the distance is smallest, for each n < L (ties to the smaller l)."""
    frame = _removable(frame).sort_values(["n", "first"])
    return frame.loc[frame.groupby("n")["distance"].idxmin()]


def rescaled(frame: pd.DataFrame) -> pd.DataFrame:
    """Distances as a matrix (index n, columns first; NaN where no block fits), each row mapped to [0, 1]."""
    matrix = _removable(frame).pivot(index="n", columns="first", values="distance")
    low, high = matrix.min(axis=1), matrix.max(axis=1)
    return matrix.sub(low, axis=0).div(high - low, axis=0)


def _removable(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the block of all L layers, which would leave nothing."""
    return frame[frame["n"] < frame["n"].max()]


# Scores against the fraction removed


@figure
def healing(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Sequence[Sequence[str]] | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """Every metric against the fraction of layers removed, healed and un-healed (paper, figures 2, 3, 6).

    ``models`` lists the panels, each a family of models; by default each model has its own. The metrics of
    a single panel stand side by side; several panels give a row for each metric. A diamond at 0 is the
    unpruned model after the same healing: what healing does without a cut.
    """
    families = models or [[model] for model in table["model"].unique()]
    metrics, strategy, recipe = _metrics(table, metrics), _strategy(table, strategy), _recipe(table, recipe)
    if len(families) == 1:
        fig, axes = plots.wrapped(len(metrics), most=4, height=1.8)
        axes = axes[:, None]
    else:
        fig, axes = plots.panels(len(metrics), len(families), height=1.5, sharey="row")
    drawn: set[str] = set()
    for row, metric in zip(axes, metrics, strict=True):
        for ax, family in zip(row, families, strict=True):
            for model in family:
                rows = _rows(table, model=model, strategy=strategy)
                _before_and_after(ax, rows, metric, recipe, plots.model_colour(table, model))
            drawn |= plots.references(ax, table, levels, family, metric)
            ax.set(xlabel=FRACTION, ylabel=label(metric))
            if len(families) > 1:
                ax.label_outer()
    _name_families(axes[0], table, families)
    colour = plots.model_colour(table, families[0][0]) if sum(map(len, families)) == 1 else INK
    plots.key(fig, _treatment_handles(table, recipe, colour) + plots.level_handles(drawn))
    return fig


@figure
def strategies(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Sequence[Sequence[str]] | None = None,
    metrics: Sequence[str] | None = None,
    recipe: str | None = None,
) -> Figure:
    """The strategies against each other for one model, un-healed and healed (paper, figures 1d and 5)."""
    model, metrics, recipe = _one_model(table, models), _metrics(table, metrics), _recipe(table, recipe)
    fig, axes = plots.panels(len(metrics), 2, height=1.35, sharex=True, sharey="row")
    drawn: set[str] = set()
    names = list(_rows(table, model=model)["strategy"].unique())
    for row, metric in zip(axes, metrics, strict=True):
        for ax, treatment in zip(row, (PRUNED, recipe), strict=True):
            for strategy in names:
                rows = _rows(table, model=model, strategy=strategy, treatment=treatment)
                plots.curve(ax, rows, metric, **_strategy_look(table, strategy, treatment))
            drawn |= plots.references(ax, table, levels, [model], metric)
        row[0].set_ylabel(label(metric))
    _before_after_titles(axes, recipe)
    handles = [Line2D([], [], label=s, **_strategy_look(table, s, recipe)) for s in names]
    plots.key(fig, [*handles, plots.band_handle(), *plots.level_handles(drawn)])
    return fig


@figure
def loss(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Sequence[Sequence[str]] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """Held-out loss over ln V before and after healing, all models together, chance = 1 (paper, figure 3)."""
    strategy, recipe = _strategy(table, strategy), _recipe(table, recipe)
    names = [m for family in models for m in family] if models else list(table["model"].unique())
    fig, axes = plots.panels(1, 2, height=2.0, sharey=True)
    for ax, treatment in zip(axes[0], (PRUNED, recipe), strict=True):
        for model in names:
            rows = _rows(table, model=model, strategy=strategy, treatment=treatment)
            plots.curve(ax, rows, "normalised_loss", **look(plots.model_colour(table, model), treatment))
        drawn = plots.references(ax, table, levels, names, "normalised_loss")
    axes[0, 0].set_ylabel(label("normalised_loss"))
    _before_after_titles(axes, recipe)
    handles = [Line2D([], [], label=m, **look(plots.model_colour(table, m), recipe)) for m in names]
    plots.key(fig, [*handles, plots.band_handle(), *plots.level_handles(drawn)])
    return fig


@figure
def recipes(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Sequence[Sequence[str]] | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipes: Sequence[str] | None = None,
) -> Figure:
    """Several healing recipes of one model: seeds, LoRA ranks, ... (paper, figures 8 and 9)."""
    model, metrics, strategy = _one_model(table, models), _metrics(table, metrics), _strategy(table, strategy)
    recipes = recipes or [t for t in table["treatment"].unique() if t != PRUNED]
    fig, axes = plots.wrapped(len(metrics), most=4, height=1.8)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(recipes)))
    looks = {PRUNED: look(plots.GREY, PRUNED)}
    looks |= {recipe: look(shade, recipe) for recipe, shade in zip(recipes, shades, strict=True)}
    drawn: set[str] = set()
    for ax, metric in zip(axes, metrics, strict=True):
        for treatment, style in looks.items():
            rows = _rows(table, model=model, strategy=strategy, treatment=treatment)
            plots.curve(ax, rows if treatment == PRUNED else rows[rows["n"] > 0], metric, **style)
        drawn |= plots.references(ax, table, levels, [model], metric)
        ax.set(xlabel=FRACTION, ylabel=label(metric))
    handles = [Line2D([], [], label=label(treatment), **style) for treatment, style in looks.items()]
    plots.key(fig, [*handles, plots.band_handle(), *plots.level_handles(drawn)])
    return fig


@figure
def retained(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Sequence[Sequence[str]] | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """What is left of each metric: 100 % is the unpruned model, 0 % is chance. A row of panels a model."""
    strategy, recipe = _strategy(table, strategy), _recipe(table, recipe)
    names = [m for family in models for m in family] if models else list(table["model"].unique())
    metrics = _metrics(table, metrics)
    fig, axes = plots.panels(len(names), 2, height=1.7, sharex=True, sharey=True)
    for row, model in zip(axes, names, strict=True):
        for ax, treatment in zip(row, (PRUNED, recipe), strict=True):
            for metric in metrics:
                rows = retention(table, levels, model, metric, strategy, treatment)
                plots.curve(ax, rows, metric, **look(plots.metric_colour(_metrics(table), metric), treatment))
            for height, level in ((100, "unpruned"), (0, "chance")):
                ax.axhline(height, zorder=1, **plots.LEVEL_LOOKS[level])
        row[0].set_ylabel("retained (%)" if len(names) == 1 else f"{model}\nretained (%)")
    axes[0, 0].set_ylim(bottom=max(-40, axes[0, 0].get_ylim()[0]))
    _before_after_titles(axes, recipe)
    handles = [
        Line2D([], [], label=label(m), **look(plots.metric_colour(_metrics(table), m), recipe))
        for m in metrics
    ]
    plots.key(fig, [*handles, plots.band_handle(), *plots.level_handles(["unpruned", "chance"])])
    return fig


def retention(
    table: pd.DataFrame, levels: pd.DataFrame, model: str, metric: str, strategy: str, treatment: str
) -> pd.DataFrame:
    """Rows of the table with ``metric`` and its standard error in per cent of the way from chance to the
    unpruned model, which counts as exact. Raises UserError for a metric whose chance is not known."""
    chance = levels.query("model == @model and metric == @metric and level == 'chance'")["value"]
    if chance.empty:
        raise UserError(f"retained: chance is not known for {metric}: leave it out of --metrics")
    scale = 100 / (plots.unpruned(table, model, metric) - chance.iloc[0])
    rows = _rows(table, model=model, strategy=strategy, treatment=treatment).copy()
    rows[metric] = (rows[metric] - chance.iloc[0]) * scale
    rows[f"{metric}_stderr"] *= abs(scale)
    return rows


# Where the blocks lie, and whether the distance chooses well


@figure
def layer_map(table: pd.DataFrame, models: Sequence[Sequence[str]] | None = None) -> Figure:
    """Which layers each strategy removes as n grows, for one model: coloured cells are gone."""
    model = _one_model(table, models)
    names = list(_rows(table, model=model)["strategy"].unique())
    fig, axes = plots.wrapped(len(names), most=4, height=2.0)
    for ax, strategy in zip(axes, names, strict=True):
        rows = _rows(table, model=model, strategy=strategy, treatment=PRUNED)
        first = rows["block"].map(lambda name: Block.parse(name).first)
        ax.barh(rows["n"], rows["n_layers"], left=-0.5, height=0.85, color="#e8e8e8")
        ax.barh(
            rows["n"], rows["n"], left=first - 0.5, height=0.85, color=plots.strategy_colour(table, strategy)
        )
        ax.set(title=strategy, xlabel="layer", ylabel="layers removed, $n$")
        ax.grid(False)
        ax.label_outer()
        plots.whole_numbers(ax.xaxis, ax.yaxis)
    return fig


@figure
def distance_loss(
    table: pd.DataFrame,
    models: Sequence[Sequence[str]] | None = None,
    recipe: str | None = None,
) -> Figure:
    """Does the distance choose well? The loss that each cut costs against its angular distance, one model.

    Grey lines join the blocks of equal n: where they rise, the closer block was the better one. The title
    gives Spearman's rank correlation over all blocks.
    """
    model, recipe = _one_model(table, models), _recipe(table, recipe)
    fig, axes = plots.panels(1, 2, height=2.1, sharex=True)
    shade = ScalarMappable(Normalize(1, table["n"].max()), "viridis")
    for ax, treatment in zip(axes[0], (PRUNED, recipe), strict=True):
        rows = _rows(table, model=model, treatment=treatment)
        rows = rows.assign(lost=rows["loss"] - plots.unpruned(table, model, "loss"))[rows["n"] > 0]
        for _, same in rows.groupby("n"):
            ax.plot(same["distance"], same["lost"], color="#bbbbbb", lw=0.7, zorder=1)
        for strategy, chosen in rows.groupby("strategy", sort=False):
            marker = _strategy_look(table, strategy, recipe)["marker"]
            ax.scatter(
                chosen["distance"],
                chosen["lost"],
                c=chosen["n"],
                norm=shade.norm,
                cmap=shade.cmap,
                marker=marker,
                s=14,
            )
        rank = rows.drop_duplicates("block")[["distance", "lost"]].rank().corr().iloc[0, 1]
        ax.set(
            title=f"{label(treatment)}: rank correlation {rank:.2f}", xlabel="angular distance of the block"
        )
    axes[0, 0].set_ylabel("loss added (nats)")
    fig.colorbar(shade, ax=list(axes[0]), label="layers removed, $n$")
    return fig


# Shared by the figures


def _rows(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows whose columns have these values. Raises UserError that lists what there is, if none."""
    for column, value in where.items():
        if value not in set(table[column]):
            there = ", ".join(map(str, table[column].unique()))
            raise UserError(f"the table has no {column} {value!r} here; it has {there}")
        table = table[table[column] == value]
    return table


def _metrics(table: pd.DataFrame, wanted: Sequence[str] | None = None) -> list[str]:
    """``wanted``, or all but the normalised loss, which is the loss over again."""
    there = all_metrics(table)
    missing = sorted(set(wanted or []) - set(there))
    if missing:
        raise UserError(f"the table has no metric {missing[0]!r}; it has {', '.join(there)}")
    return list(wanted or [name for name in there if not name.endswith("normalised_loss")])


def _strategy(table: pd.DataFrame, wanted: str | None) -> str:
    return wanted or table["strategy"].iloc[0]


def _recipe(table: pd.DataFrame, wanted: str | None) -> str:
    healed = [t for t in table["treatment"].unique() if t != PRUNED]
    if not (wanted or healed):
        raise UserError("the table has no healed rows: make it with --recipes")
    return wanted or healed[0]


def _one_model(table: pd.DataFrame, models: Sequence[Sequence[str]] | None) -> str:
    names = [m for family in models for m in family] if models else list(table["model"].unique())
    if len(names) != 1:
        raise UserError(f"this figure is of one model: choose with --models one of {', '.join(names)}")
    return names[0]


def _before_and_after(ax: Axes, rows: pd.DataFrame, metric: str, recipe: str, colour) -> None:
    """The un-healed curve from n = 0, the healed one from n = 1, and the control, if any, at 0."""
    healed = _rows(rows, treatment=recipe)
    plots.curve(ax, healed[healed["n"] > 0], metric, **look(colour, recipe))
    plots.curve(ax, _rows(rows, treatment=PRUNED), metric, **look(colour, PRUNED))
    control = healed[healed["n"] == 0]
    ax.errorbar(0 * control["n"], control[metric], control[f"{metric}_stderr"], color=colour, **plots.CONTROL)


def _treatment_handles(table: pd.DataFrame, recipe: str, colour) -> list[Artist]:
    handles = [plots.treatment_handle(treatment, colour) for treatment in (recipe, PRUNED)]
    if ((table["treatment"] == recipe) & (table["n"] == 0)).any():
        handles.append(Line2D([], [], color=colour, label=f"{label(recipe)}, not cut", **plots.CONTROL))
    return [*handles, plots.band_handle(colour)]


def _strategy_look(table: pd.DataFrame, strategy: str, treatment: str) -> dict:
    hollow = strategy != table["strategy"].iloc[0]
    return look(plots.strategy_colour(table, strategy), treatment, hollow)


def _before_after_titles(axes: np.ndarray, recipe: str) -> None:
    for ax, treatment in zip(axes[0], (PRUNED, recipe), strict=True):
        ax.set_title(label(treatment))
    for ax in axes[-1]:
        ax.set_xlabel(FRACTION)


def _name_families(axes: Sequence[Axes], table: pd.DataFrame, families: Sequence[Sequence[str]]) -> None:
    """The model as a title over each panel of one, a legend in each panel of several."""
    for ax, family in zip(axes, families, strict=False):
        if len(family) > 1:
            ax.legend(handles=[Line2D([], [], color=plots.model_colour(table, m), label=m) for m in family])
        elif len(families) > 1:
            ax.set_title(family[0])
