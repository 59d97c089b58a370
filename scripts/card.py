"""Write the model card of an exported checkpoint."""

from pathlib import Path

from deeper_layers.runtime import cli
from deeper_layers.runtime.files import atomic_write


def main(arguments) -> None:
    from deeper_layers.export.model_card import card

    text = card(
        *(arguments.checkpoint, arguments.full, arguments.results, arguments.unpruned, arguments.healing),
        metrics=dict(one.rsplit("=", 1) for one in arguments.metrics),
    )
    with atomic_write(arguments.out) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    results = {"nargs": "*", "type": Path, "default": [], "metavar": "JSON"}
    cli.add_paths(
        p,
        checkpoint="Folder that merge.py wrote.",
        full="Folder of the uncut checkpoint.",
        out="README.md to write.",
    )
    p.add_argument("--results", **results, help="Evaluations of this variant.")
    p.add_argument("--unpruned", **results, help="Those of the uncut model, in the same order.")
    p.add_argument("--healing", type=Path, metavar="JSON", help="heal.json, if it was healed.")
    meaning = "SUITE=METRIC: the metric that stands for the tasks of a suite."
    p.add_argument("--metrics", nargs="*", default=[], metavar="SUITE=METRIC", help=meaning)
    cli.run(main, p)
