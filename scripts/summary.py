"""Say how many layers of each model can go within a tolerance, what that saves, and how to export it."""

from pathlib import Path

from deeper_layers.reporting.metrics import read_table
from deeper_layers.reporting.page import to_html
from deeper_layers.reporting.scores import PRUNED, read_result, result_path
from deeper_layers.reporting.summary import summary
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import replacing


def main(arguments) -> None:
    table, levels = read_table(arguments.table), read_table(arguments.levels)
    models = table["model"].unique() if arguments.suites else []
    made = {model: how_measured(arguments.table.parent / model, arguments.suites) for model in models}
    text = summary(table, levels, arguments.tolerance, arguments.command, made)
    for path in arguments.out:
        with replacing(path) as aside:
            aside.write_text(to_html(text, "What can be removed") if path.suffix == ".html" else text)


def how_measured(folder: Path, suites: list[str]) -> str:
    """Device, precision and versions of a model's evaluations."""
    made = [read_result(folder / result_path(PRUNED, "full", suite))["deeper_layers"] for suite in suites]
    devices, precisions = ({one[key] for one in made} for key in ("device", "precision"))
    versions = {f"{name} {made[0]['versions'][name]}": None for name in ("torch", "transformers", "lm-eval")}
    return (
        f"Measured in {', '.join(sorted(precisions))} on {', '.join(sorted(devices))}, {', '.join(versions)}."
    )


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--table", type=Path, default=Path("results/table.csv"), help="the results table")
    p.add_argument("--levels", type=Path, default=Path("results/levels.csv"), help="chance and majority")
    p.add_argument("--suites", nargs="*", default=[], metavar="NAME", help="evaluations, to say how they ran")
    p.add_argument("--tolerance", type=float, default=0.05, help="part of the way to chance that may be lost")
    p.add_argument("--command", default="snakemake export", help="what exports a checkpoint of this study")
    p.add_argument("--out", nargs="+", type=Path, required=True, help="the summary: .md, .html")
    cli.run(main, p)
