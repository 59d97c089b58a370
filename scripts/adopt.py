"""Check a checkpoint folder and link it into the results as a full model."""

from pathlib import Path

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.hub_cache import downloaded
from deeper_layers.data.tokens import NoTokenizer, load_tokenizer
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import torch_unless_verified
from deeper_layers.runtime.progress import echo


def main(arguments) -> None:
    source, origin = arguments.source, None
    if arguments.download:
        source, origin = downloaded(arguments.download)
    trust, reshard = arguments.trust_remote_code, arguments.reshard
    check_tokenizer(Path(source), trust)
    adopt_checkpoint(source, arguments.model, arguments.out, origin, trust, reshard)
    if arguments.verify:
        from deeper_layers.models.verify import verify_checkpoint

        verify_checkpoint(arguments.out, trust_remote_code=trust)


def check_tokenizer(folder: Path, trust: bool) -> None:
    """A tokenizer that is not there is told of: text that is tokenised already needs none."""
    try:
        if (folder / "config.json").is_file():
            load_tokenizer(folder, trust)
    except NoTokenizer as error:
        echo(f"warning: {error}")


if __name__ == "__main__":
    p = cli.parser(__doc__)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--source", type=Path, help="Folder of a Hugging Face checkpoint.")
    source.add_argument("--download", type=Path, help="Or what download.py wrote about a model of the hub.")
    p.add_argument("--model", required=True, help="The model's name in the study.")
    cli.add_paths(p, out="Folder to fill with links and a manifest.")
    cli.add_flags(
        p,
        reshard="Write the weights once more, one file per layer.",
        verify="Load the result and check every tensor's name.",
    )
    cli.trust_option(p)
    cli.run(main, p, torch_unless_verified)
