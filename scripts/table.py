"""Gather the study's files into one table: a row per (model, strategy, n, treatment)."""

from pathlib import Path

from deeper_layers.runtime import cli


def main(arguments):
    from deeper_layers.reporting.contents import Contents
    from deeper_layers.reporting.formats import write
    from deeper_layers.reporting.metrics import metrics
    from deeper_layers.reporting.table import build

    rows, levels = build(arguments.study.parent, Contents.read(arguments.study))
    for path in arguments.out:
        write(rows, path)
    if arguments.levels:
        write(levels, arguments.levels)
    print(f"{len(rows)} rows; metrics: {', '.join(metrics(rows))}")


if __name__ == "__main__":
    p = cli.parser(__doc__)
    meaning = "What the results beside it hold."
    p.add_argument("--study", type=Path, default=Path("results/study.json"), help=meaning)
    p.add_argument("--out", nargs="+", type=Path, required=True, help="The table: .csv, .md, .html.")
    p.add_argument("--levels", type=Path, help="Also write the chance and majority levels, as .csv.")
    cli.run(main, p)
