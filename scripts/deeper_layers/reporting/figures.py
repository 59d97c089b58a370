"""The figures: each function takes data frames and returns a matplotlib Figure (plots.py has the look).

``table`` and ``levels`` are those of table.py; ``distances`` maps each model to its distances.csv (first, n,
distance, stderr). ``models`` lists families, each a list of models. What is left out is the table's first
strategy, its first recipe (none, if nothing was healed), and every metric but the normalised loss, which
is the loss again. Every function raises UserError, saying what there is, if it is asked for what the table
does not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..errors import UserError
from ..pruning.layer_set import LayerSet
from . import plots
from .metrics import above_chance, chance, is_loss, unpruned
from .metrics import metrics as all_metrics
from .metrics import retained as retained_part
from .plots import GREY, INK, label, look
from .scores import PRUNED

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

FIRST, SIZE = r"first layer of the block, $\ell$", "layers in the block, $n$"


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
        bar = fig.colorbar(shade, ax=ax, pad=0.02, aspect=25, label=SIZE)
        plots.whole_numbers(ax.xaxis, bar.ax.yaxis)
    axes[0].legend()
    fig.supxlabel(FIRST)
    fig.supylabel(r"angular distance $d(x^{(\ell)},\, x^{(\ell+n)})$")
    return fig


@figure
def distance_map(distances: Mapping[str, pd.DataFrame]) -> Figure:
    """Heat map of d over first layer l and block size n, rescaled to [0, 1] for each n (paper, figure 4).

    A few blocks far above the others (those with layer 0) do not take the scale: see ``rescaled``.
    """
    fig, axes = plots.wrapped(len(distances), most=4, height=2.3)
    for ax, (model, frame) in zip(axes, distances.items(), strict=True):
        cells, best = rescaled(frame), closest(frame)
        mesh = ax.pcolormesh(
            cells.columns, cells.index, np.ma.masked_invalid(cells), cmap="viridis_r", vmin=0, vmax=1
        )
        ax.plot(best["first"], best["n"], "k.", ms=3, label=r"$\ell^*(n)$")
        ax.set(title=model if len(distances) > 1 else "")
        ax.grid(False)
        plots.whole_numbers(ax.xaxis, ax.yaxis)
    axes[0].legend(loc="upper right")
    fig.supxlabel(FIRST)
    fig.supylabel(SIZE)
    label = "distance, rescaled for each $n$"
    fig.colorbar(mesh, ax=list(axes), pad=0.02, aspect=25, extend="max", label=label)
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


# Scores against the fraction removed

Families = Sequence[Sequence[str]]


@figure
def healing(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """Every metric against the fraction of layers removed, healed and un-healed (paper, figures 2, 3, 6).

    A panel for each family (by default each model is its own) and metric. A diamond at 0 is the uncut model
    after the same healing: what more training alone does.
    """
    families = models or [[model] for model in table["model"].unique()]
    metrics, treatments = _metrics(table, metrics), _treatments(table, recipe)
    strategy = strategy or table["strategy"].iloc[0]
    fig, axes = _family_panels(families, metrics)
    drawn: set[str] = set()
    for row, family in zip(axes, families, strict=True):
        for ax, metric in zip(row, metrics, strict=True):
            for model in family:
                for treatment in treatments:
                    rows = _variant(table, model, strategy, treatment)
                    plots.curve(ax, rows, metric, **look(plots.model_colour(table, model), treatment))
            drawn |= plots.references(ax, table, levels, family, metric)
        for ax in row:
            ax.set_xlabel(plots.removed_label(ax) if ax.get_subplotspec().is_last_row() else "")
        if len(family) > 1:
            lines = [plots.handle(model, color=plots.model_colour(table, model)) for model in family]
            row[0].legend(handles=lines)
    colour = plots.model_colour(table, families[0][0]) if sum(map(len, families)) == 1 else INK
    handles = [plots.handle(label(treatment), **look(colour, treatment)) for treatment in treatments]
    plots.key(fig, [*handles, *plots.usual_handles(table, treatments, drawn, colour)])
    return fig


def _family_panels(families: Families, metrics: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [family, metric]: families side by side while they fit, else below each other."""
    labels = [label(metric) for metric in metrics]
    names = [family[0] if len(family) == 1 else "" for family in families]
    if len(families) == 1:
        fig, axes = plots.wrapped(len(metrics), most=4, height=1.8)
        for ax, name in zip(axes, labels, strict=True):
            ax.set_ylabel(name)
        return fig, axes[None]
    if len(families) <= 4:
        fig, axes = plots.panels(len(metrics), len(families), height=1.45, sharex="col", sharey="row")
        plots.frame(axes, titles=names, names=labels)
        return fig, axes.T
    fig, axes = plots.panels(len(families), len(metrics), height=1.25, sharex=True, sharey="col")
    plots.frame(axes, titles=labels, names=names)
    return fig, axes


@figure
def strategies(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    recipe: str | None = None,
) -> Figure:
    """The strategies against each other for one model, un-healed and healed (paper, figures 1d and 5)."""
    model, treatments = _one_model(table, models), _treatments(table, recipe)
    metrics, names = _metrics(table, metrics), _rows(table, model=model)["strategy"].unique()
    fig, axes = plots.panels(len(metrics), len(treatments), plots.row(metrics), sharex=True, sharey="row")
    drawn: set[str] = set()
    for row, metric in zip(axes, metrics, strict=True):
        for ax, treatment in zip(row, treatments, strict=True):
            for strategy in reversed(names):  # the first on top, inside the larger marks of the others
                rows = _variant(table, model, strategy, treatment)
                plots.curve(ax, rows, metric, **plots.strategy_look(table, strategy, treatment))
            drawn |= plots.references(ax, table, levels, [model], metric)
    plots.frame(axes, map(label, treatments), map(label, metrics))
    handles = [plots.handle(s, **plots.strategy_look(table, s, treatments[-1])) for s in names]
    plots.key(fig, [*handles, *plots.usual_handles(table, treatments, drawn)])
    return fig


@figure
def loss(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """Held-out loss over ln V before and after healing, all models together, chance = 1 (paper, figure 3)."""
    names, treatments = _flat(table, models), _treatments(table, recipe)
    metric, strategy = _loss(table, "normalised_loss"), strategy or table["strategy"].iloc[0]
    fig, axes = plots.panels(1, len(treatments), height=1.85 + 0.05 * len(names), sharey=True)
    for ax, treatment in zip(axes[0], treatments, strict=True):
        for model in names:
            rows = _variant(table, model, strategy, treatment)
            plots.curve(ax, rows, metric, **look(plots.model_colour(table, model), treatment))
        drawn = plots.references(ax, table, levels, names, metric)
    plots.frame(axes, map(label, treatments), [label(metric)])
    handles = [
        plots.handle(model, **look(plots.model_colour(table, model), treatments[-1])) for model in names
    ]
    plots.key(fig, [*handles, *plots.usual_handles(table, treatments, drawn)])
    return fig


@figure
def recipes(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipes: Sequence[str] | None = None,
) -> Figure:
    """Healing recipes of one model against each other: seeds, LoRA ranks, ... (paper, figures 8 and 9).

    A panel for each metric, and again for each strategy, unless one is asked for.
    """
    model, metrics = _one_model(table, models), _metrics(table, metrics)
    strategies = [strategy] if strategy else list(table["strategy"].unique())
    recipes = recipes or _healed(_rows(table, model=model))
    pairs = [(strategy, metric) for strategy in strategies for metric in metrics]
    fig, axes = plots.wrapped(len(pairs), most=min(4, len(metrics)), height=1.8)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(recipes)))
    looks = {PRUNED: look(GREY, PRUNED)}
    looks |= {recipe: look(shade, recipe) for recipe, shade in zip(recipes, shades, strict=True)}
    drawn: set[str] = set()
    for ax, (strategy, metric) in zip(axes, pairs, strict=True):
        for treatment, style in looks.items():
            plots.curve(ax, _variant(table, model, strategy, treatment), metric, **style)
        drawn |= plots.references(ax, table, levels, [model], metric)
        ax.set(
            xlabel=plots.removed_label(ax),
            ylabel=label(metric),
            title=strategy if len(strategies) > 1 else "",
        )
    handles = [plots.handle(label(treatment), **style) for treatment, style in looks.items()]
    plots.key(fig, [*handles, *plots.usual_handles(table, recipes, drawn)])
    return fig


@figure
def prompts(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """One task of one model as several suites ask it: examples in other orders, or fewer of them (paper,
    figure 7). ``metrics`` are the task's columns, a curve each."""
    model, treatments = _one_model(table, models), _treatments(table, recipe)
    metrics, strategy = _metrics(table, metrics), strategy or table["strategy"].iloc[0]
    task = common_end(metrics)
    fig, axes = plots.panels(1, len(treatments), height=2.0 + 0.05 * len(metrics), sharey=True)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(metrics)))
    for ax, treatment in zip(axes[0], treatments, strict=True):
        for metric, colour in zip(metrics, colours, strict=True):
            plots.curve(ax, _variant(table, model, strategy, treatment), metric, **look(colour, treatment))
        level = chance(levels, model, metrics[0])
        if level is not None:
            ax.axhline(level, zorder=1, **plots.LEVEL_LOOKS["chance"])
    plots.frame(axes, map(label, treatments), [label(task)])
    names = [label(metric.removesuffix(f"_{task}")) for metric in metrics]
    handles = [
        plots.handle(name, **look(colour, treatments[-1]))
        for name, colour in zip(names, colours, strict=True)
    ]
    plots.key(fig, [*handles, *plots.usual_handles(table, treatments, ["chance"])])
    return fig


def common_end(names: Sequence[str]) -> str:
    """The words that all ``names`` end with: of ``a_mmlu`` and ``b_1_mmlu`` it is ``mmlu``."""
    ends = [name.split("_")[::-1] for name in names]
    shared = []
    for words in zip(*ends, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return "_".join(reversed(shared))


@figure
def retained(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """What is left of each metric: 100 % is the unpruned model; 0 % is chance, or twice the loss. A row of
    panels a model.

    Left out, unless asked for, is what the unpruned model does not do better than chance (3 standard
    errors) and what has no chance level.
    """
    names, treatments = _flat(table, models), _treatments(table, recipe)
    strategy = strategy or table["strategy"].iloc[0]
    fig, axes = plots.panels(len(names), len(treatments), height=1.8, sharex=True, sharey=True)
    shown = {model: metrics or above_chance(table, levels, model) for model in names}
    for row, model in zip(axes, names, strict=True):
        for ax, treatment in zip(row, treatments, strict=True):
            for metric in shown[model]:
                rows = _variant(table, model, strategy, treatment)
                full, level = unpruned(table, model), _known(levels, model, metric)
                rows = retained_part(rows, metric, full, level, is_loss(table, metric))
                rows = rows.assign(**{name: 100 * rows[name] for name in (metric, f"{metric}_stderr")})
                plots.curve(ax, rows, metric, **plots.metric_look(table, metric, treatment))
            for level, height in {"unpruned": 100, "chance": 0}.items():
                ax.axhline(height, zorder=1, **plots.LEVEL_LOOKS[level])
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(low, -25), min(high, 130))
    beside = ["retained (%)"] if len(names) == 1 else [f"{model}\nretained (%)" for model in names]
    plots.frame(axes, map(label, treatments), beside)
    known = [metric for metric in _metrics(table) if any(metric in each for each in shown.values())]
    looks = {metric: plots.metric_look(table, metric, treatments[-1]) for metric in known}
    handles = [plots.handle(label(m).split(" (")[0], **looks[m]) for m in known]  # per cent, not nats
    handles += plots.usual_handles(table, treatments, ["unpruned"])
    plots.key(fig, [*handles, plots.handle("nothing left", **plots.LEVEL_LOOKS["chance"])])
    return fig


@figure
def published(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    strategy: str | None = None,
    recipe: str | None = None,
) -> Figure:
    """Ours on the paper's: every metric that its figures 2 and 5 have, healed and un-healed, at our n.

    A panel for each model and metric; the paper's values are the broad grey lines.
    """
    strategy, treatments = strategy or table["strategy"].iloc[0], _treatments(table, recipe)
    pairs = [
        (model, metric)
        for model in _flat(table, models)
        for metric in _metrics(table, metrics)
        if metric in _published(_rows(table, model=model, strategy=strategy))
    ]
    if not pairs:
        raise UserError(f"the table has no published value of the strategy {strategy} beside one of ours")
    fig, axes = plots.wrapped(len(pairs), most=4, height=1.8)
    drawn: set[str] = set()
    for ax, (model, metric) in zip(axes, pairs, strict=True):
        for treatment in treatments:
            rows = _variant(table, model, strategy, treatment).sort_values("n")
            theirs = rows.dropna(subset=f"{metric}_published")
            x = 100 * theirs["fraction_removed"]
            ax.plot(x, theirs[f"{metric}_published"], **_paper_look(treatment))
            plots.curve(ax, rows, metric, **look(plots.model_colour(table, model), treatment))
        drawn |= plots.references(ax, table, levels, [model], metric)
        ax.set(title=model, xlabel=plots.removed_label(ax), ylabel=label(metric))
    models = list(dict.fromkeys(model for model, _ in pairs))
    colour = plots.model_colour(table, models[0]) if len(models) == 1 else INK
    handles = [plots.handle(f"ours, {label(t)}", **look(colour, t)) for t in treatments]
    handles += [plots.handle(f"paper's, {label(t)}", **_paper_look(t)) for t in treatments]
    plots.key(fig, [*handles, *plots.usual_handles(table, treatments, drawn, colour)])
    return fig


def _paper_look(treatment: str) -> dict:
    """Broad and pale, under our curves, with their kinds of line."""
    line = (0, (1, 0.6)) if treatment == PRUNED else "-"
    return {"color": "#c4c4c4", "linewidth": 3, "linestyle": line, "zorder": 1.5}


def _published(rows: pd.DataFrame) -> list[str]:
    """The metrics of which some row has a published value."""
    return [m for m in all_metrics(rows) if rows.get(f"{m}_published", pd.Series(dtype=float)).notna().any()]


# Where the blocks lie, and whether the distance chooses well

EQUAL_N = {"color": "#bbbbbb", "linewidth": 0.8, "zorder": 1}


@figure
def layer_map(table: pd.DataFrame, models: Families | None = None) -> Figure:
    """Which layers each strategy removes from one model as n grows: coloured layers are gone."""
    model = _one_model(table, models)
    names = _rows(table, model=model)["strategy"].unique()
    fig, axes = plots.wrapped(len(names), most=4, height=1.9)
    for ax, strategy in zip(axes, names, strict=True):
        rows = _variant(table, model, strategy, PRUNED).query("n > 0")
        first = rows["block"].map(lambda name: LayerSet.parse(name).first)
        n_layers = rows["n_layers"].iloc[0]
        colour = plots.strategy_colour(table, strategy)
        ax.barh(rows["n"], n_layers, left=-0.5, height=0.8, color="#e4e4e4")
        ax.barh(rows["n"], rows["n"], left=first - 0.5, height=0.8, color=colour)
        ax.set(title=strategy, xlabel="layer", ylabel="layers removed, $n$", xlim=(-0.5, n_layers - 0.5))
        ax.margins(y=0.02)
        ax.grid(False)
        ax.label_outer()
        plots.whole_numbers(ax.xaxis)
        ns = sorted(rows["n"].unique())
        ax.set_yticks(ns[:: math.ceil(len(ns) / 12)])  # at bars, of which there may be gaps between
    return fig


@figure
def distance_loss(table: pd.DataFrame, models: Families | None = None, recipe: str | None = None) -> Figure:
    """Does the distance choose well? What each cut of one model costs in loss, against its distance.

    Grey lines join blocks of equal n: where they rise, the closer block was the better one.
    """
    metric = _loss(table, "loss")
    table = _rows(table, model=_one_model(table, models))
    names, treatments = table["strategy"].unique(), _treatments(table, recipe)
    table = table.assign(lost=table[metric] - unpruned(table, table["model"].iloc[0])[metric])
    fig, axes = plots.panels(1, len(treatments), height=2.6, sharex=True)
    shade = ScalarMappable(Normalize(1, table["n"].max()), "viridis")
    for ax, treatment in zip(axes[0], treatments, strict=True):
        rows = _rows(table, treatment=treatment).query("n > 0")
        for _, same in rows.groupby("n"):
            ax.plot(same["distance"], same["lost"], **EQUAL_N)
        for strategy in reversed(names):
            chosen = rows[rows["strategy"] == strategy]
            colours = shade.to_rgba(chosen["n"])
            size, faces = (10, colours) if strategy == names[0] else (22, "white")
            size *= plots.crowded(len(chosen)) ** 2
            marks = {"s": size, "facecolors": faces, "edgecolors": colours, "linewidths": 0.8}
            ax.scatter(chosen["distance"], chosen["lost"], **marks)
        rank, better, rivals = choice_quality(rows)
        note = f"rank correlation {rank:.2f}\ncloser is better for {better} of {rivals} $n$"
        ax.text(0.5, 1.02, note, transform=ax.transAxes, ha="center", va="bottom", fontsize=6)
        ax.set_title(label(treatment), pad=19)
        ax.set_xlabel("angular distance of block")
    axes[0, 0].set_ylabel("loss added (nats)")
    bar = fig.colorbar(shade, ax=list(axes[0]), location="bottom", label="layers removed, $n$", aspect=40)
    plots.whole_numbers(bar.ax.xaxis)
    looks = [look(INK, treatments[-1], hollow=strategy != names[0]) | {"linestyle": ""} for strategy in names]
    handles = [plots.handle(strategy, **marks) for strategy, marks in zip(names, looks, strict=True)]
    plots.key(fig, [*handles, plots.handle("equal $n$", **EQUAL_N)])
    return fig


def choice_quality(rows: pd.DataFrame) -> tuple[float, int, int]:
    """Of rows with n, block, distance and the loss ``lost``: Spearman's rank correlation over all blocks;
    and, of the n for which strategies chose different blocks, how many lost least with the closest; how many
    there are."""
    blocks = rows.drop_duplicates("block")
    rank = blocks[["distance", "lost"]].rank().corr().iloc[0, 1]
    rivals = [same for _, same in blocks.groupby("n") if len(same) > 1]
    return rank, sum(same["distance"].idxmin() == same["lost"].idxmin() for same in rivals), len(rivals)


# What a cut saves


@figure
def speed(speed: pd.DataFrame) -> Figure:
    """What is left of one model's time a token, memory and size on disk, against the fraction removed.

    The dashed line is the law that the paper states: as much as there are layers. What runs besides the
    layers (embeddings, head, the program itself) keeps a curve above it.
    """
    speed = speed.groupby("n").mean(numeric_only=True)  # over the blocks of equal n
    full = speed.loc[0]
    x = 100 * speed["fraction_removed"]
    fig, axes = plots.panels(1, 2, height=2.1, sharex=True, sharey=True)
    times = {"prefill": "time a token, prompt", "decode": "time a token, new"}
    sizes = {"memory_bytes": "memory", "bytes": "weights on disk"}
    looks = {name: plots.measured_look(i) for i, name in enumerate([*times, *sizes])}
    for name in times:
        low, middle, high = (100 * full[name] / speed[name + end] for end in ("_high", "", "_low"))
        axes[0, 0].plot(x, middle, **looks[name])
        axes[0, 0].fill_between(x, low, high, color=looks[name]["color"], alpha=0.2, linewidth=0)
    for name in sizes:
        axes[0, 1].plot(x, 100 * speed[name] / full[name], **looks[name])
    law = {"color": GREY, "linestyle": "--", "linewidth": 0.9}
    for ax in axes[0]:
        ax.plot([0, 100], [100, 0], zorder=1, **law)
        ax.set(xlim=(-2, x.max() + 2), ylim=(0, None))
        plots.removed_axis(ax, int(full["n_layers"]))
    plots.frame(axes, ["time", "memory"], ["of the unpruned model (%)"])
    handles = [plots.handle(text, **looks[name]) for name, text in (times | sizes).items()]
    handles += [plots.handle("in proportion to layers", **law), plots.quartiles_handle()]
    plots.key(fig, handles)
    return fig


@figure
def pareto(
    table: pd.DataFrame,
    levels: pd.DataFrame,
    models: Families | None = None,
    metrics: Sequence[str] | None = None,
    recipe: str | None = None,
) -> Figure:
    """Which n is worth it: quality of every cut of one model against its speed and its memory.

    The line joins the cuts that no other one beats in both (the Pareto front), with their n. A row of panels
    a metric; left out, unless asked for, is what the unpruned model does not do better than chance, if it
    does anything better.
    """
    model, treatments = _one_model(table, models), _treatments(table, recipe)
    table = _rows(table, model=model)
    if "decode" not in table:
        raise UserError("the table has no speed: this figure needs study.speed: true")
    metrics, full = (
        list(metrics or above_chance(table, levels, model) or _metrics(table)),
        unpruned(table, model),
    )
    rows = table[table["treatment"].isin(treatments) & ((table["n"] > 0) | (table["treatment"] == PRUNED))]
    rows = rows.assign(
        decode=rows["decode"] / full["decode"], memory=100 * rows["memory_bytes"] / full["memory_bytes"]
    )
    better = {"decode": 1, "memory": -1}
    fig, axes = plots.panels(len(metrics), 2, plots.row(metrics), sharex="col", sharey="row")
    colour = plots.model_colour(table, model)
    for line, metric in zip(axes, metrics, strict=True):
        sign = -1 if is_loss(table, metric) else 1
        line[0].set_ylabel(label(metric))
        for ax, x in zip(line, better, strict=True):
            for treatment in treatments:
                some = rows[rows["treatment"] == treatment]
                ax.plot(some[x], some[metric], **look(colour, treatment) | {"linestyle": ""}, alpha=0.8)
            chosen = rows[front(better[x] * rows[x], sign * rows[metric])].sort_values(x)
            ax.plot(chosen[x], chosen[metric], zorder=1.5, **FRONT)
            for row in chosen.drop_duplicates("n").itertuples():
                at, style = (getattr(row, x), getattr(row, metric)), {"ha": "center", "fontsize": 5.5}
                ax.annotate(row.n, at, (0, 3.5), textcoords="offset points", **style)
            ax.axhline(full[metric], zorder=1, **plots.LEVEL_LOOKS["unpruned"])
            ax.margins(x=0.08, y=0.12)
    for ax, name in zip(axes[-1], ["writing speed\n(unpruned: 1)", "memory\n(% of unpruned)"], strict=True):
        ax.set_xlabel(name)
    axes[-1, 1].invert_xaxis()  # for both, better is to the right; the panels above share it
    handles = [plots.handle(label(t), **look(colour, t) | {"linestyle": ""}) for t in treatments]
    handles += [plots.handle("not beaten in both, with $n$", **FRONT)]
    plots.key(fig, [*handles, plots.handle("unpruned", **plots.LEVEL_LOOKS["unpruned"])])
    return fig


FRONT = {"color": INK, "linewidth": 0.7, "linestyle": ":"}


def front(first: pd.Series, second: pd.Series) -> pd.Series:
    """Which of the points (first, second) no other one is at least as good as in both and better in one."""
    a, b = first.to_numpy(), second.to_numpy()
    at_least = (a[:, None] >= a) & (b[:, None] >= b)
    better = (a[:, None] > a) | (b[:, None] > b)
    return pd.Series(~(at_least & better).any(axis=0), index=first.index)


# What is asked for, or what the table has


def _rows(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows whose columns have these values, of which there must be some."""
    for column, value in where.items():
        there = table[column].unique()
        if value not in there:
            raise UserError(f"the table has no {column} {value!r} here; it has {', '.join(map(str, there))}")
        table = table[table[column] == value]
    return table


def _variant(table: pd.DataFrame, model: str, strategy: str, treatment: str) -> pd.DataFrame:
    """The rows of one curve; none where a recipe healed none of the strategy's cuts."""
    rows = _rows(table, model=model, strategy=strategy)
    return rows[rows["treatment"] == treatment]


def _metrics(table: pd.DataFrame, wanted: Sequence[str] | None = None) -> list[str]:
    there = all_metrics(table)
    for metric in wanted or []:
        if metric not in there:
            raise UserError(f"the table has no metric {metric!r}; it has {', '.join(there)}")
    return list(wanted or [name for name in there if not name.endswith("normalised_loss")])


def _loss(table: pd.DataFrame, name: str) -> str:
    """The column ``loss`` or ``normalised_loss``, or the first one of several loss suites."""
    for metric in all_metrics(table):
        if metric == name or metric.endswith(f"_{name}") and not metric.endswith(f"normalised_{name}"):
            return metric
    raise UserError(f"the table has no {name}: this figure needs a loss suite")


def _healed(table: pd.DataFrame) -> list[str]:
    return [treatment for treatment in table["treatment"].unique() if treatment != PRUNED]


def _treatments(table: pd.DataFrame, recipe: str | None) -> list[str]:
    """Un-healed, then the recipe, if there is one."""
    if recipe:
        _rows(table, treatment=recipe)
    return [PRUNED, *([recipe] if recipe else _healed(table)[:1])]


def _flat(table: pd.DataFrame, models: Families | None) -> list[str]:
    return [model for family in models for model in family] if models else list(table["model"].unique())


def _one_model(table: pd.DataFrame, models: Families | None) -> str:
    names = _flat(table, models)
    if len(names) != 1:
        raise UserError(f"this figure shows one model: choose with --models one of {', '.join(names)}")
    return names[0]


def _known(levels: pd.DataFrame, model: str, metric: str) -> float:
    """The chance level of a metric, which must be known."""
    level = chance(levels, model, metric)
    if level is None:
        raise UserError(f"chance is not known for {metric}: leave it out of --metrics")
    return level
