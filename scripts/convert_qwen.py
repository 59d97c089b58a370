"""Write a first-generation Qwen checkpoint in the layout of Qwen2, as a full model of the study."""

from pathlib import Path

from deeper_layers.checkpoints import qwen
from deeper_layers.checkpoints.hub_cache import downloaded
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.runtime import cli


def main(arguments) -> None:
    source, origin = arguments.source, None
    if arguments.download:
        source, origin = downloaded(arguments.download)
    qwen.convert(source, arguments.model, arguments.out, origin)
    verify_checkpoint(arguments.out)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--source", type=Path, help="Folder of the checkpoint, with its qwen.tiktoken.")
    source.add_argument("--download", type=Path, help="Or what download.py wrote about a model of the hub.")
    p.add_argument("--model", required=True, help="The model's name in the study.")
    cli.add_paths(p, out="Folder to write.")
    cli.run(main, p)
