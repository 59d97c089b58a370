"""Write a cut model as a checkpoint to deploy, what a healing wrote merged into the unquantised weights."""

from pathlib import Path

from deeper_layers.runtime import cli


def main(arguments) -> None:
    from deeper_layers.export.merge import export

    export(arguments.checkpoint, arguments.adapter, arguments.out, arguments.trust_remote_code)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(p, checkpoint="Folder of the cut model.", out="Folder to write.")
    p.add_argument("--adapter", type=Path, help="What a healing wrote, to merge. Default is nothing.")
    cli.run(main, p)
