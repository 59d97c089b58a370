"""Write an exported checkpoint in the 4 bits of bitsandbytes."""

from deeper_layers.runtime import cli


def main(arguments) -> None:
    from deeper_layers.export.nf4_checkpoint import write_nf4

    write_nf4(arguments.checkpoint, arguments.out, arguments.trust_remote_code)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(p, checkpoint="Folder of the exported checkpoint.", out="Folder to write.")
    cli.run(main, p)
