"""Every figure: where it is drawn, from what, when a study has it, and its caption. No pandas, no matplotlib.

A new figure is a function of this package that returns a matplotlib Figure, and an entry here under the
function's name, written with dashes. Its rule, its options and its place in the report follow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

# What a figure is drawn from: distances.csv of a model, its speed.csv, or the study's table and levels.
DISTANCES, SPEED, TABLE = "distances", "speed", "table"
# What it shows: a model, or all models together.
MODEL, STUDY = "model", "study"


@dataclass(frozen=True)
class FigureEntry:
    """What is to be known of a figure before it is drawn.

    Attributes:
        module: the module of this package that has its function.
        reads: what the function takes: of DISTANCES, a data frame for each model; of SPEED, one data frame;
            of TABLE, a ``select.Selection``.
        caption: what the report says below it, as reStructuredText.
        scopes: MODEL, STUDY or both.
        needs: what a study must have for the figure to show anything: ``cuts``, ``scores`` (any suite),
            ``loss`` (a suite of it), ``recipes`` (any), ``no recipes``, ``several recipes``, ``distances``,
            ``speed``, ``prompts`` (several suites with one task), ``published`` (values of the paper beside
            ours).
        options: those of scripts/figure.py that it takes.
    """

    module: str
    reads: str
    caption: str
    scopes: tuple[str, ...] = (MODEL,)
    needs: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()


def available(scope: str, reads: str, has: Collection[str]) -> list[str]:
    """The figures of a MODEL or the STUDY that are drawn from ``reads``, of a study that has ``has``."""
    return [
        name
        for name, entry in FIGURES.items()
        if scope in entry.scopes and reads == entry.reads and entry.needs <= set(has)
    ]


FIGURES = {
    "distance-curves": FigureEntry(
        module="distances",
        reads=DISTANCES,
        needs=frozenset({"distances"}),
        caption="Angular distance between the residual stream before and after a block of n layers that "
        "starts at layer l, a curve for each n (dark: 1 layer, yellow: almost all). Black: the block of "
        "least distance, which the strategy *similarity* removes. Bands: ± 1 standard error. As figure 1c "
        "of the paper.",
    ),
    "distance-map": FigureEntry(
        module="distances",
        reads=DISTANCES,
        needs=frozenset({"distances"}),
        caption="The same distances as a map: across, the first layer of the block; up, its size n; yellow "
        "is the least distance of each row, dark the greatest (or four times as far from the least as the "
        "row's median, if the greatest is farther). Dots: the block that *similarity* removes. As figure 4 "
        "of the paper.",
    ),
    "speed": FigureEntry(
        module="cost",
        reads=SPEED,
        needs=frozenset({"speed"}),
        caption="What is left of time, memory and size on disk, in per cent of the unpruned model. Left: "
        "seconds per token, in reading a prompt and in writing; the median of runs in which all cuts take "
        "turns, and their quartiles. Right: the most memory of a run, and the weights. Dashes: in "
        "proportion to the layers, the law that the paper states; embeddings and head keep a model above it.",
    ),
    "layer-map": FigureEntry(
        module="choice",
        reads=TABLE,
        needs=frozenset({"cuts"}),
        options=("models",),
        caption="Which layers (across) each strategy removes for each n (up): coloured ones are gone.",
    ),
    "pareto": FigureEntry(
        module="cost",
        reads=TABLE,
        needs=frozenset({"cuts", "speed", "scores"}),
        options=("models", "metrics", "recipe"),
        caption="Which n is worth it: every cut (circles healed, stars not) by quality, up, and by writing "
        "speed or memory, better to the right. The dotted line joins the cuts that no other one beats in "
        "both; numbers are their n. Thin line: the unpruned model.",
    ),
    "published": FigureEntry(
        module="quality",
        reads=TABLE,
        scopes=(STUDY,),
        needs=frozenset({"cuts", "published"}),
        options=("models", "metrics", "strategy", "recipe"),
        caption="Ours on the values that the paper's figures show (broad grey lines).",
    ),
    "healing": FigureEntry(
        module="quality",
        reads=TABLE,
        scopes=(MODEL, STUDY),
        needs=frozenset({"cuts", "recipes", "scores"}),
        options=("models", "metrics", "strategy", "recipe"),
        caption="Each measure against the part of the layers removed by the first strategy. Dotted with "
        "stars: cut and not healed; solid with circles: healed. Diamond: the uncut model after the same "
        "training, which tells healing from training on. Thin line: the unpruned model; grey dashes: "
        "chance, which is only named at the edge where it lies far above a loss; grey dash-dots: the most "
        "frequent answer. Bands: ± 1 standard error. As figures 2, 3 and 6 of the paper.",
    ),
    "quality": FigureEntry(
        module="quality",
        reads=TABLE,
        scopes=(MODEL, STUDY),
        needs=frozenset({"cuts", "no recipes", "scores"}),
        options=("models", "metrics", "strategy"),
        caption="Each measure against the part of the layers removed by the first strategy, without healing. "
        "Thin line: the unpruned model; grey dashes: chance, which is only named at the edge where it lies "
        "far above a loss; grey dash-dots: the most frequent answer. Bands: ± 1 standard error. As the "
        "dotted lines of figures 2 and 3 of the paper.",
    ),
    "retained": FigureEntry(
        module="quality",
        reads=TABLE,
        needs=frozenset({"cuts", "scores"}),
        options=("models", "metrics", "strategy", "recipe"),
        caption="What is left of each measure on one axis: 100 % is the unpruned model; 0 % is chance, of a "
        "loss twice the unpruned one (or chance, if nearer). Tasks on which the unpruned model is within 3 "
        "standard errors of chance are omitted.",
    ),
    "trade-off": FigureEntry(
        module="tradeoff",
        reads=TABLE,
        needs=frozenset({"cuts", "scores"}),
        options=("models", "metrics", "recipe"),
        caption="What is lost for the layers that go: of each n the cut, by any strategy, that retains most "
        "on average. Above, what it retains of each measure (100 % is the unpruned model; bars: ± 1 standard "
        "error; thin lines: the losses named at the right); below, the layers that it lacks, coloured by the "
        "strategy. Broad pale lines: where a curve breaks, losing for good significantly more than twice the "
        "equal shares of the layers that go. Grey dots: equal shares. Dashes: the best compromise, farthest "
        "above equal shares of what retains half. Diamonds: the uncut model after the same healing.",
    ),
    "strategies": FigureEntry(
        module="comparison",
        reads=TABLE,
        needs=frozenset({"cuts", "scores"}),
        options=("models", "metrics", "recipe"),
        caption="How the block is chosen: colour tells the strategy, hollow markers any but the first. "
        "Left, un-healed; right, healed, if the study heals. Where two strategies remove the same block "
        "their markers lie on each other. As figures 1d and 5 of the paper.",
    ),
    "loss": FigureEntry(
        module="quality",
        reads=TABLE,
        scopes=(STUDY,),
        needs=frozenset({"cuts", "loss"}),
        options=("models", "strategy", "recipe"),
        caption="Held-out loss divided by ln V before and, if the study heals, after healing; 1 is chance, "
        "named at the edge where no cut comes near it. As figure 3 of the paper.",
    ),
    "distance-loss": FigureEntry(
        module="choice",
        reads=TABLE,
        needs=frozenset({"cuts", "loss", "distances"}),
        options=("models", "recipe"),
        caption="Does the angular distance choose well? The loss that a cut adds against the distance of "
        "its block; colour is n. Grey lines join blocks of equal n: where they rise, the closer block was "
        "the better one. The rank correlation is Spearman's, over all blocks.",
    ),
    "recipes": FigureEntry(
        module="comparison",
        reads=TABLE,
        needs=frozenset({"cuts", "several recipes", "scores"}),
        options=("models", "metrics", "strategy", "recipes"),
        caption="The healing recipes of the study against each other, shaded from dark to light in their "
        "order; grey stars: un-healed. As figures 8 and 9 of the paper, if the recipes are seeds or ranks.",
    ),
    "prompts": FigureEntry(
        module="comparison",
        reads=TABLE,
        needs=frozenset({"cuts", "prompts"}),
        options=("models", "metrics", "strategy", "recipe"),
        caption="One task as several suites ask it: with other examples or fewer. Left, un-healed; right, "
        "healed. As figure 7 of the paper.",
    ),
}
