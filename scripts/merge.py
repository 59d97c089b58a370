"""Write a cut model as a checkpoint to deploy, what a healing wrote merged into the unquantised weights."""

from pathlib import Path

from deeper_layers.runtime import cli


def main(arguments) -> None:
    from deeper_layers.export.merge import export

    export(arguments.checkpoint, arguments.adapter, arguments.out, arguments.trust_remote_code)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.compute_options(p)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the cut model")
    p.add_argument("--adapter", type=Path, help="what a healing wrote, to merge; none: the cut as it is")
    p.add_argument("--out", type=Path, required=True, help="folder to write")
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    cli.run(main, p)
