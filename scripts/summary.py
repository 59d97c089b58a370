"""Say how many layers of each model can go within a tolerance, what that saves, and how to export it."""

from pathlib import Path

from deeper_layers.layout import FULL, PRUNED, Layout
from deeper_layers.reporting.contents import Contents
from deeper_layers.reporting.metrics import read_table
from deeper_layers.reporting.page import to_html
from deeper_layers.reporting.scores import read_result
from deeper_layers.reporting.summary import summary
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import atomic_write
from deeper_layers.settings.study import Configuration


def main(arguments) -> None:
    table, levels = read_table(arguments.table), read_table(arguments.levels)
    made = how_measured(arguments.study) if arguments.study else {}
    text = summary(table, levels, arguments.tolerance, arguments.command, made)
    for path in arguments.out:
        with atomic_write(path) as temporary:
            temporary.write_text(to_html(text, "What can be removed") if path.suffix == ".html" else text)


def how_measured(study: Path) -> dict[str, str]:
    """{model: how its evaluations were made}, of the study.json of its results."""
    contents, paths = Contents.read(study), Layout(str(study.parent))
    results = {
        model: [Path(paths.result(PRUNED, FULL, suite, model)) for suite in contents.suites]
        for model in contents.models
    }
    return {model: made_with(files) for model, files in results.items() if files}


def made_with(results: list[Path]) -> str:
    """Device, precision and versions of evaluations."""
    made = [read_result(path)["deeper_layers"] for path in results]
    devices, precisions = ({one[key] for one in made} for key in ("device", "precision"))
    versions = {f"{name} {made[0]['versions'][name]}": None for name in ("torch", "transformers", "lm-eval")}
    return (
        f"Measured in {', '.join(sorted(precisions))} on {', '.join(sorted(devices))}, {', '.join(versions)}."
    )


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--table", type=Path, default=Path("results/table.csv"), help="The results table.")
    p.add_argument("--levels", type=Path, default=Path("results/levels.csv"), help="Chance and majority.")
    p.add_argument("--study", type=Path, help="study.json of the results, to say how they were measured.")
    cli.add_settings(p, Configuration, "tolerance")
    p.add_argument("--command", default="snakemake export", help="What exports a checkpoint of this study.")
    p.add_argument("--out", nargs="+", type=Path, required=True, help="The summary: .md, .html.")
    cli.run(main, p)
