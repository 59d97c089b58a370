"""Write the model card of an exported checkpoint."""

from pathlib import Path

from deeper_layers.runtime import cli
from deeper_layers.runtime.files import replacing


def main(arguments) -> None:
    from deeper_layers.export.model_card import card

    text = card(
        arguments.checkpoint, arguments.full, arguments.results, arguments.unpruned, arguments.healing
    )
    with replacing(arguments.out) as aside:
        aside.write_text(text)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    results = {"nargs": "*", "type": Path, "default": [], "metavar": "JSON"}
    p.add_argument("--checkpoint", type=Path, required=True, help="folder that merge.py wrote")
    p.add_argument("--full", type=Path, required=True, help="folder of the uncut checkpoint")
    p.add_argument("--results", **results, help="evaluations of this variant")
    p.add_argument("--unpruned", **results, help="those of the uncut model, in the same order")
    p.add_argument("--healing", type=Path, metavar="JSON", help="heal.json, if it was healed")
    p.add_argument("--out", type=Path, required=True, help="README.md to write")
    cli.run(main, p)
