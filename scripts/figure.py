"""Draw one figure of the study."""

from pathlib import Path

from deeper_layers.errors import UserError
from deeper_layers.reporting.figures.registry import DISTANCES, FIGURES, SPEED
from deeper_layers.runtime import cli

OPTIONS = {
    "models": "models to show, a panel each; join by commas those that share one",
    "metrics": "metrics to show, as in the table",
    "strategy": "strategy to show",
    "recipe": "healing recipe to show",
    "recipes": "healing recipes to compare",
}


def main(arguments):
    from deeper_layers.reporting.figures.draw import draw, save

    figure = draw(arguments.name, read(arguments))
    for kind in arguments.formats:
        save(figure, f"{arguments.out}.{kind}")


def read(arguments):
    """What the figure is drawn from: a ``Selection``, or data frames of distances.csv or speed.csv. Raises
    UserError for an option that it does not take, and if a file that it needs is not named or missing."""
    import pandas as pd

    from deeper_layers.reporting.figures.select import Selection
    from deeper_layers.reporting.metrics import read_table

    entry = FIGURES[arguments.name]
    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name)}
    for name in given:
        if name not in entry.options:
            raise UserError(f"the figure {arguments.name} has no option --{name}")
    if entry.reads == DISTANCES:
        if not arguments.distances:
            raise UserError(f"the figure {arguments.name} needs --distances results/MODEL/distances.csv ...")
        return {path.parent.name: pd.read_csv(path) for path in arguments.distances}
    if entry.reads == SPEED:
        if not arguments.speed:
            raise UserError(f"the figure {arguments.name} needs --speed results/MODEL/speed.csv")
        return read_table(arguments.speed)
    if "models" in given:
        given["models"] = [family.split(",") for family in given["models"]]
    return Selection.of(read_table(arguments.table), read_table(arguments.levels), given)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("name", choices=FIGURES, help="which figure")
    p.add_argument("--out", type=Path, required=True, help="where to write it, without the ending")
    p.add_argument("--formats", nargs="+", choices=["svg", "pdf", "png"], default=["svg", "png"])
    p.add_argument("--table", type=Path, default=Path("results/table.csv"), help="the results table")
    p.add_argument("--levels", type=Path, default=Path("results/levels.csv"), help="chance and majority")
    p.add_argument("--distances", nargs="+", type=Path, help="distances.csv, in the folders of the models")
    p.add_argument("--speed", type=Path, help="speed.csv of the model")
    for name, meaning in OPTIONS.items():
        several = {"nargs": "+"} if name.endswith("s") else {}
        p.add_argument(f"--{name}", metavar="NAME", help=meaning, **several)
    cli.run(main, p)
