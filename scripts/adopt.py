"""Check a checkpoint folder and link it into the results as a full model (deeper_layers.checkpoint.adopt)."""

import os
import sys
from pathlib import Path

if "--verify" not in sys.argv and "--trust-remote-code" not in sys.argv:
    # Reading a config needs no torch, and without it transformers imports in 0.6 s instead of 4.
    sys.modules["torch"] = None
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from deeper_layers import checkpoint, program


def main(arguments) -> None:
    origin = None
    if arguments.hub_id:
        origin = {"kind": "hub", "id": arguments.hub_id, "revision": arguments.revision}
    checkpoint.adopt(arguments.source, arguments.model, arguments.out, origin, arguments.trust_remote_code)
    if arguments.verify:
        checkpoint.verify(arguments.out, trust_remote_code=arguments.trust_remote_code)


if __name__ == "__main__":
    p = program.parser(__doc__)
    p.add_argument("--source", type=Path, required=True, help="folder of a Hugging Face checkpoint")
    p.add_argument("--model", required=True, help="the model's name in the study")
    p.add_argument("--out", type=Path, required=True, help="folder to fill with links and a manifest")
    p.add_argument("--hub-id", help="the hub model that the folder is a snapshot of, for the manifest")
    p.add_argument("--revision", help="its revision")
    p.add_argument("--verify", action="store_true", help="load the result and check every tensor's name")
    p.add_argument("--trust-remote-code", action="store_true", help="run code that the checkpoint brings")
    program.run(main, p)
