"""The style that all figures share.

What a style means, everywhere: colour tells the model, the strategy, the metric or the recipe (each kind has
its own set); solid with dots is healed, dotted with stars is not; hollow markers are any strategy but the
table's first; a band or bar is ± 1 standard error; grey dashes are chance. The colours suit colour-blind
readers, and what stands side by side differs in lightness or marker too, so that it can be read in grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd

from ...layout import PRUNED
from ..metrics import metrics

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
MORE_STRATEGIES = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288", "#44AA99"]
METRIC_COLOURS = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#0072B2", "#D55E00"]
METRIC_MARKERS = ["o", "s", "^", "v", "D", "P", "X"]
INK, GREY = "#222222", "#777777"

LEVEL_STYLES = {
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


def label(name: str) -> str:
    """What readers call a metric or a treatment of the table."""
    return LABELS.get(name, name.replace("_", " "))


def line_style(colour, treatment: str, hollow: bool = False) -> dict:
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


def strategy_style(table: pd.DataFrame, strategy: str, treatment: str) -> dict:
    """The table's first strategy is filled, the others are hollow."""
    hollow = strategy != table["strategy"].iloc[0]
    return line_style(strategy_colour(table, strategy), treatment, hollow)


def strategy_colour(table: pd.DataFrame, strategy: str) -> str:
    others = [name for name in table["strategy"].unique() if name not in STRATEGY_COLOURS]
    return STRATEGY_COLOURS.get(strategy) or _nth(MORE_STRATEGIES, others.index(strategy))


def model_colour(table: pd.DataFrame, model: str) -> str:
    """By the model's place in the table, so that it is the same in every figure of a study."""
    return _nth(MODEL_COLOURS, list(table["model"].unique()).index(model))


def metric_style(table: pd.DataFrame, metric: str, treatment: str) -> dict:
    """For figures that show several metrics in one panel: each has its own marker, healed or not."""
    i = metrics(table).index(metric)
    marker = {"marker": _nth(METRIC_MARKERS, i), "markersize": 3.2}
    return line_style(_nth(METRIC_COLOURS, i), treatment) | marker


def measured_style(i: int) -> dict:
    """For what is measured in per cent of the unpruned model: each has its own marker."""
    colour, marker = _nth(METRIC_COLOURS, i), _nth(METRIC_MARKERS, i)
    return {"color": colour, "linestyle": "-", "marker": marker, "markersize": 3}


def _nth(colours: Sequence[str], i: int) -> str:
    return colours[i % len(colours)]


def shades(count: int) -> np.ndarray:
    """Colours [count, 4] from dark to light, of what has an order."""
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.85, count))


def crowded(points: int) -> float:
    """The factor that keeps the markers of a curve apart: 1 up to 16 points, then smaller."""
    return min(1, max(0.45, 4 / max(points, 1) ** 0.5))
