"""Check all cuts of a checkpoint before any is written: does what stays stay as it is?"""

from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import write_json
from deeper_layers.runtime.process import optional_imports


def main(arguments) -> None:
    from deeper_layers.models.verify import verify_cuts
    from deeper_layers.runtime.provenance import provenance

    blocks = [LayerSet.parse(name) for name in arguments.blocks]
    verify_cuts(arguments.checkpoint, blocks, arguments.trust_remote_code)
    write_json(arguments.out, provenance(checkpoint=str(arguments.checkpoint), blocks=arguments.blocks))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, checkpoint="Folder of the checkpoint to cut.", out="JSON to write.")
    p.add_argument("--blocks", nargs="*", default=[], help="Cuts to check, as drop_3-5 drop_2_7-9.")
    cli.trust_option(p)
    cli.run(main, p, optional_imports)
