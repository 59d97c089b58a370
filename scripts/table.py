"""Gather the study's files into one table: a row per (model, strategy, n, treatment)."""

from pathlib import Path

from deeper_layers import program, table


def main(args):
    rows, levels = table.build(args.results, args.models, args.recipes, args.suites, args.controls)
    for path in args.out:
        table.write(rows, path)
    if args.levels:
        table.write(levels, args.levels)
    print(f"{len(rows)} rows: {', '.join(args.models)}; metrics: {', '.join(table.metrics(rows))}")


if __name__ == "__main__":
    p = program.parser(__doc__)
    p.add_argument("--results", type=Path, default=Path("results"), help="the study's folder")
    p.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="models, as folders of --results"
    )
    p.add_argument(
        "--recipes", nargs="*", default=[], metavar="RECIPE", help="healing recipes, beside pruned"
    )
    p.add_argument(
        "--controls", nargs="*", default=[], metavar="RECIPE", help="recipes that also healed n = 0"
    )
    p.add_argument("--suites", nargs="+", required=True, metavar="SUITE", help="evaluations to gather")
    p.add_argument(
        "--out", nargs="+", type=Path, required=True, metavar="FILE", help=".csv, .md and .html files"
    )
    p.add_argument("--levels", type=Path, metavar="CSV", help="where to write the chance and majority levels")
    program.run(main, p)
