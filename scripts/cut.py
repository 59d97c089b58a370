"""Write a checkpoint without a block of its layers."""

import os
import sys
from pathlib import Path

if "--verify" not in sys.argv and "--trust-remote-code" not in sys.argv:
    # Reading a config needs no torch, and without it transformers imports in 0.6 s instead of 4.
    sys.modules["torch"] = None
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from deeper_layers.checkpoints import checkpoint
from deeper_layers.pruning.blocks import Block
from deeper_layers.runtime import program


def main(arguments) -> None:
    block = Block.parse(arguments.block)
    checkpoint.cut(arguments.checkpoint, block, arguments.out, arguments.trust_remote_code, arguments.reshard)
    if arguments.verify:
        checkpoint.verify(arguments.out, arguments.checkpoint, arguments.trust_remote_code)


if __name__ == "__main__":
    p = program.parser(__doc__)
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
    program.run(main, p)
