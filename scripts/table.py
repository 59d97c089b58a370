"""Gather the study's files into one table: a row per (model, strategy, n, treatment)."""

from pathlib import Path

from deeper_layers.reporting.formats import write
from deeper_layers.reporting.metrics import metrics
from deeper_layers.reporting.table import build
from deeper_layers.runtime import cli


def main(arguments):
    rows, levels = build(
        arguments.results,
        arguments.models,
        arguments.recipes,
        arguments.suites,
        arguments.controls,
        arguments.c4,
        arguments.speed,
    )
    for path in arguments.out:
        write(rows, path)
    if arguments.levels:
        write(levels, arguments.levels)
    print(f"{len(rows)} rows; metrics: {', '.join(metrics(rows))}")


if __name__ == "__main__":
    p = cli.parser(__doc__)
    names = {"nargs": "*", "default": [], "metavar": "NAME"}
    p.add_argument("--results", type=Path, default=Path("results"), help="folder of the study")
    p.add_argument("--models", nargs="+", required=True, metavar="NAME", help="models, as in that folder")
    p.add_argument("--recipes", **names, help="healing recipes; if only some cuts, NAME:2,4:deepest:MODEL")
    p.add_argument("--controls", **names, help="those of the recipes that also healed the full model")
    p.add_argument("--suites", **names, help="evaluations to gather")
    p.add_argument("--c4", **names, help="those of the evaluations that are the paper's loss, that of C4")
    p.add_argument("--speed", action="store_true", help="with memory and speed, from each speed.csv")
    p.add_argument("--out", nargs="+", type=Path, required=True, help="the table: .csv, .md, .html")
    p.add_argument("--levels", type=Path, help="also write the chance and majority levels, as .csv")
    cli.run(main, p)
