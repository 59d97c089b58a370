"""Write a page to explore the results table: one file that needs no network."""

from pathlib import Path

from deeper_layers.reporting.explore import page
from deeper_layers.reporting.metrics import read_table
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import atomic_write


def main(arguments) -> None:
    text = page(read_table(arguments.table), read_table(arguments.levels), arguments.command)
    with atomic_write(arguments.out) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--table", type=Path, default=Path("results/table.csv"), help="The results table.")
    p.add_argument("--levels", type=Path, default=Path("results/levels.csv"), help="Chance and majority.")
    p.add_argument("--command", default="snakemake export", help="What exports a checkpoint of this study.")
    p.add_argument("--out", type=Path, required=True, help="The page, .html.")
    cli.run(main, p)
