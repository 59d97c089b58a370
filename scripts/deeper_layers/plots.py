"""The look that all figures share, and the pieces that they are made of.

What a look means, everywhere: colour tells the model, the strategy, the metric or the recipe (each kind has
its own set); solid with dots is healed, dotted with stars is not; hollow markers are any strategy but the
first; a band or bar is ± 1 standard error; grey dashes are chance. The colours suit colour-blind readers,
and nothing is told by colour alone, so that the figures can be read in grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .errors import UserError
from .files import replacing
from .table import PRUNED

COLUMN, PAGE = 3.3, 6.9  # inches: one column of a paper, and the width of both

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.titleweight": "bold",
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "lines.markeredgewidth": 0.7,
    "savefig.dpi": 300,
    "svg.fonttype": "path",  # letters as outlines: nothing to install where the figure is opened
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "svg.hashsalt": "deeper-layers",  # equal figures, equal files
}

# Paul Tol's muted colours for models, Okabe and Ito's for strategies and metrics, viridis for recipes.
MODEL_COLOURS = ["#332288", "#44AA99", "#CC6677", "#999933", "#88CCEE", "#882255", "#DDCC77", "#117733"]
STRATEGY_COLOURS = {"similarity": "#0072B2", "deepest": "#D55E00"}
MORE_STRATEGIES = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
METRIC_COLOURS = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#0072B2", "#D55E00"]
INK, GREY = "#222222", "#777777"

LEVEL_LOOKS = {
    "unpruned": {"color": INK, "linestyle": "-", "linewidth": 0.6},
    "chance": {"color": GREY, "linestyle": "--", "linewidth": 0.9},
    "majority": {"color": GREY, "linestyle": "-.", "linewidth": 0.9},
}

CONTROL = {"linestyle": "none", "marker": "D", "markersize": 3.5, "markerfacecolor": "white"}

LABELS = {
    "loss": "held-out loss (nats)",
    "normalised_loss": r"held-out loss / $\ln V$",
    "mmlu": "MMLU",
    "boolq": "BoolQ",
    "gsm8k": "GSM8K",
    "hellaswag": "HellaSwag",
    PRUNED: "un-healed",
}
FRACTION = "layers removed (%)"


def save(figure: Figure, path: str | Path) -> None:
    """Write svg, pdf or png, as the file's ending says; equal figures give equal bytes."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    ending = Path(path).suffix
    if ending not in undated:
        raise UserError(f"cannot draw {path}: its name must end in {', '.join(undated)}")
    with replacing(path) as aside, matplotlib.rc_context(STYLE):
        figure.savefig(aside, format=ending[1:], metadata=undated[ending])


def panels(
    rows: int, columns: int, height: float, one: float = COLUMN / 2, **share
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [rows, columns]: as wide as one column of a paper if panels at least ``one``
    inches wide fit, else as both; ``height`` inches a row. ``share``: sharex, sharey of subplots."""
    width = COLUMN if columns * one <= COLUMN else PAGE
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def wrapped(count: int, most: int, height: float, **size) -> tuple[Figure, np.ndarray]:
    """A figure and its ``count`` axes in rows of at most ``most``."""
    columns = min(count, most)
    figure, axes = panels(math.ceil(count / columns), columns, height, **size)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, axes.flatten()[:count]


def label(name: str) -> str:
    """What readers call a metric, treatment or strategy of the table."""
    return LABELS.get(name, name.replace("_", " "))


def look(colour, treatment: str, hollow: bool = False) -> dict:
    """Line and marker of a curve."""
    style = {"linestyle": ":", "marker": "*", "markersize": 5} if treatment == PRUNED else {"marker": "o"}
    return {"color": colour, "markerfacecolor": "white" if hollow else colour, **style}


def curve(ax: Axes, rows: pd.DataFrame, metric: str, **look) -> None:
    """Draw a metric of the table's ``rows`` against the percentage of layers removed, with its band."""
    rows = rows.dropna(subset=metric).sort_values("n")
    x, y = 100 * rows["fraction_removed"], rows[metric]
    ax.plot(x, y, **look)
    band(ax, x, y, rows[f"{metric}_stderr"], look["color"])


def band(ax: Axes, x: pd.Series, y: pd.Series, stderr: pd.Series, colour) -> None:
    ax.fill_between(x, y - stderr, y + stderr, color=colour, alpha=0.2, linewidth=0)


def references(
    ax: Axes, table: pd.DataFrame, levels: pd.DataFrame, models: Sequence[str], metric: str
) -> set[str]:
    """Draw a panel's levels and, if it shows a single model, its unpruned score; returns what was drawn."""
    here = levels[levels["model"].isin(models) & (levels["metric"] == metric)]
    lines = {(row.level, row.value) for row in here.itertuples()}
    if len(models) == 1:
        lines.add(("unpruned", unpruned(table, models[0], metric)))
    for name, value in sorted(lines):
        ax.axhline(value, zorder=1, **LEVEL_LOOKS[name])
    return {name for name, _ in lines}


def unpruned(table: pd.DataFrame, model: str, metric: str) -> float:
    """The score of the full model. Raises UserError if the table has none."""
    full = table.query("model == @model and n == 0 and treatment == @PRUNED")[metric]
    if full.empty:
        raise UserError(f"the table has no unpruned row (n = 0) of {model}")
    return full.iloc[0]


def key(
    figure: Figure, handles: Iterable[Artist], title: str | None = None, columns: int | None = None
) -> None:
    """The legend above all panels."""
    handles = list(handles)
    fits = 3 if figure.get_figwidth() == COLUMN else 6
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns or min(len(handles), fits), title=title
    )


def treatment_handle(treatment: str, colour=INK, name: str | None = None, hollow: bool = False) -> Line2D:
    return Line2D([], [], label=name or label(treatment), **look(colour, treatment, hollow))


def level_handles(drawn: Iterable[str]) -> list[Line2D]:
    return [Line2D([], [], label=name, **LEVEL_LOOKS[name]) for name in LEVEL_LOOKS if name in set(drawn)]


def band_handle(colour=INK) -> Patch:
    return Patch(facecolor=colour, alpha=0.2, linewidth=0, label="± 1 standard error")


def whole_numbers(*axes: Axis) -> None:
    """Ticks at whole numbers only: layers are counted."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


def model_colour(table: pd.DataFrame, model: str) -> str:
    """By the model's place in the table, so that it is the same in every figure of a study."""
    return _nth(MODEL_COLOURS, list(table["model"].unique()).index(model))


def metric_colour(known: Sequence[str], metric: str) -> str:
    return _nth(METRIC_COLOURS, list(known).index(metric))


def strategy_colour(table: pd.DataFrame, strategy: str) -> str:
    others = [s for s in table["strategy"].unique() if s not in STRATEGY_COLOURS]
    return STRATEGY_COLOURS.get(strategy) or _nth(MORE_STRATEGIES, others.index(strategy))


def _nth(colours: Sequence[str], i: int) -> str:
    return colours[i % len(colours)]
