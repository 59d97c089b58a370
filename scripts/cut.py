"""Write a checkpoint without some of its layers."""

from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import torch_unless_verified


def main(arguments) -> None:
    block = LayerSet.parse(arguments.block)
    cut_checkpoint(arguments.checkpoint, block, arguments.out, arguments.trust_remote_code, arguments.reshard)
    if arguments.verify:
        from deeper_layers.models.verify import verify_checkpoint

        verify_checkpoint(arguments.out, arguments.checkpoint, arguments.trust_remote_code)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(
        p,
        checkpoint="Folder of the checkpoint to cut.",
        out="Folder to write; a checkpoint there is replaced.",
    )
    p.add_argument(
        "--block", required=True, help="Layers to remove: drop_21-28 (both ends too) or drop_3_7-9."
    )
    cli.add_flags(
        p,
        reshard="Write one file per layer (with --block full: once).",
        verify="Load the result: are tensors, config and kept layers as meant?",
    )
    cli.trust_option(p)
    cli.run(main, p, torch_unless_verified)
