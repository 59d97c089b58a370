"""Write a GGUF file without some of its layers, the others as they are in their 4 or 8 bits."""

from pathlib import Path

from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime import cli


def main(arguments) -> None:
    from deeper_layers.checkpoints.gguf_cut import cut_gguf

    cut_gguf(arguments.source, LayerSet.parse(arguments.block), arguments.out)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--source", type=Path, required=True, help="The .gguf file.")
    p.add_argument(
        "--block", required=True, help="Layers to remove: drop_21-28 (both ends too) or drop_3_7-9."
    )
    cli.add_paths(p, out="The .gguf file to write.")
    cli.run(main, p)
