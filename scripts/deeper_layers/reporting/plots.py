"""The look that all figures share, and the pieces that they are made of.

What a look means, everywhere: colour tells the model, the strategy, the metric or the recipe (each kind has
its own set); solid with dots is healed, dotted with stars is not; hollow markers are any strategy but the
table's first; a band or bar is ± 1 standard error; grey dashes are chance. The colours suit colour-blind
readers, and what stands side by side differs in lightness or marker too, so that it can be read in grey.
"""

from __future__ import annotations

import math
import re
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
from matplotlib.ticker import Locator, MaxNLocator

from ..errors import UserError
from ..runtime.files import replacing
from .metrics import is_loss, metrics, unpruned
from .scores import PRUNED

SCREEN = 1.5  # how much larger than on paper a figure is on a screen
COLUMN, PAGE = 3.3, 6.9  # inches: one column of a paper, and the width of both

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.titleweight": "bold",
    "axes.labelsize": 7,
    "figure.labelsize": 7,
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
MODEL_COLOURS = ["#332288", "#CC6677", "#88CCEE", "#117733", "#DDCC77", "#882255", "#44AA99", "#999933"]
STRATEGY_COLOURS = {"similarity": "#0072B2", "deepest": "#D55E00"}
MORE_STRATEGIES = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
METRIC_COLOURS = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#0072B2", "#D55E00"]
METRIC_MARKERS = ["o", "s", "^", "v", "D", "P", "X"]
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
    "yesno": "yes/no",
    PRUNED: "un-healed",
}
FRACTION, LAYERS = "layers removed (%)", r"layers removed, $n$ and %"


# Making and saving a figure


def panels(
    rows: int, columns: int, height: float, one: float = COLUMN / 2, **share
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [rows, columns]: as wide as one column of a paper if panels ``one`` inch wide
    or more fit, else as both; ``height`` inches a row. ``share``: sharex and sharey of subplots."""
    width = COLUMN if columns * one <= COLUMN else PAGE
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def row(rows: Sequence) -> float:
    """Inches for each of a figure's rows of panels, with its share of the legend above."""
    return 1.2 + 0.5 / max(1, len(rows))


def wrapped(count: int, most: int, height: float, **size) -> tuple[Figure, np.ndarray]:
    """A figure and its ``count`` axes, in rows of at most ``most``."""
    columns = min(count, most)
    figure, axes = panels(math.ceil(count / columns), columns, height, **size)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, axes.flatten()[:count]


def frame(axes: np.ndarray, titles: Iterable[str], names: Iterable[str]) -> None:
    """Of axes [rows, columns]: titles over the columns, names beside the rows, the fraction removed below."""
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name)
    for ax in axes[-1]:
        ax.set_xlabel(removed_label(ax))


def key(figure: Figure, handles: Sequence[Artist]) -> None:
    """The legend above all panels: as few lines as fit the width, equally long. All is drawn by now: chance
    that lies above the data of a panel is written at its edge."""
    for ax in figure.axes:
        _mark_what_is_above(ax)
    dashes = [line for ax in figure.axes for line in ax.get_lines() if line.get_linestyle() == "--"]
    handles = [handle for handle in handles if dashes or handle.get_label() != "chance"]
    names = [len(handle.get_label()) for handle in handles]
    em = STYLE["legend.fontsize"]
    for lines in range(1, len(handles) + 1):
        columns = math.ceil(len(handles) / lines)
        widths = [part.max() for part in np.array_split(names, columns)]  # as legend() fills them
        # Around each name: line 2.4 em, gap 0.8, space to the next 1.4; a letter is about 0.53 em.
        if sum(4.6 + 0.53 * width for width in widths) * em <= 72 * figure.get_figwidth():
            break
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def save(figure: Figure, path: str | Path) -> None:
    """Write svg, pdf or png, as the file's ending says; equal figures give equal bytes. An svg, which is for
    screens, is shown larger than a column of paper."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    ending = Path(path).suffix
    if ending not in undated:
        raise UserError(f"cannot draw {path}: its name must end in {', '.join(undated)}")
    with replacing(path) as aside, matplotlib.rc_context(STYLE):
        figure.savefig(aside, format=ending[1:], metadata=undated[ending])
        if ending == ".svg":
            aside.write_text(_enlarged(aside.read_text()))


def _enlarged(svg: str) -> str:
    """The same drawing at ``SCREEN`` times its size, which only its head states."""
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    width, height = (SCREEN * float(length) for length in size.groups())
    return svg.replace(size[0], f'width="{width:g}pt" height="{height:g}pt"', 1)


# Looks


def label(name: str) -> str:
    """What readers call a metric or a treatment of the table."""
    return LABELS.get(name, name.replace("_", " "))


def look(colour, treatment: str, hollow: bool = False) -> dict:
    """Line and marker of a curve; hollow markers are larger, so that a filled one fits inside."""
    line, marker, size = (":", "*", 5) if treatment == PRUNED else ("-", "o", 3)
    face, size = ("white", size + 1.6) if hollow else (colour, size)
    return {
        "color": colour,
        "linestyle": line,
        "marker": marker,
        "markersize": size,
        "markerfacecolor": face,
    }


def strategy_look(table: pd.DataFrame, strategy: str, treatment: str) -> dict:
    """The table's first strategy is filled, the others are hollow."""
    hollow = strategy != table["strategy"].iloc[0]
    return look(strategy_colour(table, strategy), treatment, hollow)


def strategy_colour(table: pd.DataFrame, strategy: str) -> str:
    others = [name for name in table["strategy"].unique() if name not in STRATEGY_COLOURS]
    return STRATEGY_COLOURS.get(strategy) or _nth(MORE_STRATEGIES, others.index(strategy))


def model_colour(table: pd.DataFrame, model: str) -> str:
    """By the model's place in the table, so that it is the same in every figure of a study."""
    return _nth(MODEL_COLOURS, list(table["model"].unique()).index(model))


def metric_look(table: pd.DataFrame, metric: str, treatment: str) -> dict:
    """For figures that show several metrics in one panel: each has its own marker, healed or not."""
    i = metrics(table).index(metric)
    marker = {"marker": _nth(METRIC_MARKERS, i), "markersize": 3.2}
    return look(_nth(METRIC_COLOURS, i), treatment) | marker


def measured_look(i: int) -> dict:
    """For what is measured in per cent of the unpruned model: each has its own marker."""
    colour, marker = _nth(METRIC_COLOURS, i), _nth(METRIC_MARKERS, i)
    return {"color": colour, "linestyle": "-", "marker": marker, "markersize": 3}


def _nth(colours: Sequence[str], i: int) -> str:
    return colours[i % len(colours)]


class Layers(Locator):
    """Ticks of an axis of percentages at whole numbers of ``n_layers`` layers; of models of several depths
    (see ``removed_axis``) at round percentages."""

    def __init__(self, n_layers: int):
        self.n_layers: int | None = n_layers

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        if self.n_layers is None:
            return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(vmin, vmax)
        a_layer = 100 / self.n_layers
        return a_layer * MaxNLocator(5, integer=True).tick_values(vmin / a_layer, vmax / a_layer)

    def __call__(self) -> np.ndarray:
        return self.tick_values(*self.axis.get_view_interval())

    def label(self, x: float, _=None) -> str:
        return f"{x:g}" if self.n_layers is None else f"{x * self.n_layers / 100:.0f}\n{x:.0f}%"


def removed_axis(ax: Axes, n_layers: int) -> None:
    """Let an x axis of percentages tell n too, unless it shows models of different numbers of layers."""
    layers = ax.xaxis.get_major_locator()
    if not isinstance(layers, Layers):
        layers = Layers(n_layers)
        ax.xaxis.set_major_locator(layers)
        ax.xaxis.set_major_formatter(layers.label)
    elif layers.n_layers != n_layers:
        layers.n_layers = None


def removed_label(ax: Axes) -> str:
    """What the x axis of a panel shows."""
    return LAYERS if getattr(ax.xaxis.get_major_locator(), "n_layers", None) else FRACTION


def whole_numbers(*axes: Axis) -> None:
    """Ticks at whole numbers only: layers are counted."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


# Drawing


def curve(ax: Axes, rows: pd.DataFrame, metric: str, **look) -> None:
    """Draw a metric against the percentage of layers removed, with its band.

    ``rows`` are those of one model, strategy and treatment. A healed model that was not cut is a control:
    drawn apart, as a diamond at 0.
    """
    rows = rows.dropna(subset=metric).sort_values("n")
    is_control = (rows["n"] == 0) & (rows["treatment"] != PRUNED)
    x, y, stderr = 100 * rows["fraction_removed"], rows[metric], rows[f"{metric}_stderr"]
    cut, size = ~is_control, crowded(len(rows)) * look["markersize"]
    ax.plot(x[cut], y[cut], **look | {"markersize": size})
    band(ax, x[cut], y[cut], stderr[cut], look["color"])
    if is_control.any():
        at_0 = x[is_control], y[is_control], stderr[is_control]
        ax.errorbar(*at_0, color=look["color"], zorder=3, **CONTROL)
    if len(rows):
        removed_axis(ax, int(rows["n_layers"].iloc[0]))


def crowded(points: int) -> float:
    """The factor that keeps the markers of a curve apart: 1 up to 16 points, then smaller."""
    return min(1, max(0.45, 4 / max(points, 1) ** 0.5))


def band(ax: Axes, x: pd.Series, y: pd.Series, stderr: pd.Series, colour) -> None:
    """± 1 standard error about a curve; nothing where it is not known."""
    ax.fill_between(x, y - stderr, y + stderr, color=colour, alpha=0.2, linewidth=0)


def references(
    ax: Axes, table: pd.DataFrame, levels: pd.DataFrame, models: Sequence[str], metric: str
) -> set[str]:
    """Draw a panel's levels and, if it shows a single model, its unpruned score; returns what was drawn.

    The axis spans the data and the levels, but of a loss not chance, which is far above: see ``key``.
    """
    here = levels[levels["model"].isin(models) & (levels["metric"] == metric)]
    lines = {(row.level, row.value) for row in here.itertuples()}
    if len(models) == 1:
        lines.add(("unpruned", unpruned(table, models[0])[metric]))
    for name, value in sorted(lines):
        if name == "chance" and is_loss(table, metric):
            across = ax.get_yaxis_transform()
            line = Line2D([0, 1], [value, value], transform=across, zorder=1, gid=ABOVE, **LEVEL_LOOKS[name])
            ax.add_artist(line)
        else:
            ax.axhline(value, zorder=1, **LEVEL_LOOKS[name])
    return {name for name, _ in lines}


ABOVE = "may lie above the data"


def _mark_what_is_above(ax: Axes) -> None:
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


def quartiles_handle() -> Patch:
    return Patch(facecolor=INK, alpha=0.2, linewidth=0, label="quartiles of the runs")


def handle(name: str, **look) -> Line2D:
    return Line2D([], [], label=name, **look)


def usual_handles(
    table: pd.DataFrame, treatments: Sequence[str], drawn: Iterable[str], colour=INK
) -> list[Artist]:
    """Legend entries of what most figures share: the control if there is one, the band, the levels drawn."""
    controls = table[(table["n"] == 0) & table["treatment"].isin(set(treatments) - {PRUNED})]
    handles = [] if controls.empty else [handle("healed, not cut", color=colour, **CONTROL)]
    handles.append(Patch(facecolor=colour, alpha=0.2, linewidth=0, label="± 1 standard error"))
    return handles + [handle(name, **LEVEL_LOOKS[name]) for name in LEVEL_LOOKS if name in set(drawn)]
