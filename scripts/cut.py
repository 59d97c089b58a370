"""Write a checkpoint without a block of its layers."""

from pathlib import Path

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
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the checkpoint to cut")
    p.add_argument("--block", required=True, help="layers to remove: drop_21-28 (both ends go too)")
    p.add_argument("--out", type=Path, required=True, help="folder to write; a checkpoint there is replaced")
    p.add_argument(
        "--reshard", action="store_true", help="write one file per layer (with --block full: once)"
    )
    p.add_argument(
        "--verify", action="store_true", help="load the result: are tensors, config and kept layers as meant"
    )
    p.add_argument("--trust-remote-code", action="store_true", help="run code that the checkpoint brings")
    cli.run(main, p, torch_unless_verified)
