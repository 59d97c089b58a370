"""Write an exported checkpoint as a GGUF file, for llama.cpp."""

from deeper_layers.runtime import cli
from deeper_layers.settings.formats import GGUF


def main(arguments) -> None:
    from deeper_layers.export.gguf_file import write_gguf

    write_gguf(arguments.checkpoint, arguments.type, arguments.out)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, checkpoint="Folder of the exported checkpoint.", out="The .gguf file to write.")
    p.add_argument("--type", choices=GGUF, required=True, help="Type of the weights.")
    cli.run(main, p)
