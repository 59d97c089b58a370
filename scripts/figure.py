"""Draw one figure of the study."""

import inspect
from pathlib import Path

import pandas as pd

from deeper_layers.errors import UserError
from deeper_layers.reporting import plots
from deeper_layers.reporting.figures import FIGURES
from deeper_layers.reporting.metrics import read_table
from deeper_layers.runtime import cli

OPTIONS = {
    "models": "models to show, a panel each; join by commas those that share one",
    "metrics": "metrics to show, as in the table",
    "strategy": "strategy to show",
    "recipe": "healing recipe to show",
    "recipes": "healing recipes to compare",
}


def main(arguments):
    draw = FIGURES[arguments.name]
    figure = draw(**inputs(arguments, set(inspect.signature(draw).parameters)))
    for kind in arguments.formats:
        plots.save(figure, f"{arguments.out}.{kind}")


def inputs(arguments, accepted: set[str]) -> dict:
    """The data frames and options that a figure takes. Raises UserError for an option that it does not."""
    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name)}
    for name in given.keys() - accepted:
        raise UserError(f"the figure {arguments.name} has no option --{name}")
    if "models" in given:
        given["models"] = [family.split(",") for family in given["models"]]
    if "distances" in accepted:
        if not arguments.distances:
            raise UserError(f"the figure {arguments.name} needs --distances results/MODEL/distances.csv ...")
        given["distances"] = {path.parent.name: pd.read_csv(path) for path in arguments.distances}
    if "speed" in accepted:
        if not arguments.speed:
            raise UserError(f"the figure {arguments.name} needs --speed results/MODEL/speed.csv")
        given["speed"] = read_table(arguments.speed)
    for name in {"table", "levels"} & accepted:
        given[name] = read_table(getattr(arguments, name))
    return given


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
