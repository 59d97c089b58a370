"""Write the model of a GGUF file as a plain Hugging Face checkpoint, a full model of the study."""

from deeper_layers.runtime import cli
from deeper_layers.settings.model import Model


def main(arguments) -> None:
    from deeper_layers.models.dequantise import dequantise_checkpoint
    from deeper_layers.models.verify import verify_checkpoint

    dequantise_checkpoint(arguments.source, arguments.model, arguments.out, arguments.dtype)
    verify_checkpoint(arguments.out)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, source="The .gguf file.", out="Folder to write; a checkpoint there is replaced.")
    cli.add_settings(p, Model, "dtype")
    p.add_argument("--model", required=True, help="The model's name in the study.")
    cli.run(main, p)
