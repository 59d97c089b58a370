"""Write a first-generation Qwen checkpoint in the layout of Qwen2, as a full model of the study."""

from pathlib import Path

from deeper_layers.checkpoints import qwen
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import read_json


def main(arguments) -> None:
    source, origin = arguments.source, None
    if arguments.download:
        record = read_json(arguments.download)
        source, origin = record["folder"], {key: record[key] for key in ("kind", "id", "revision")}
    qwen.convert(source, arguments.model, arguments.out, origin)
    verify_checkpoint(arguments.out)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--source", type=Path, help="folder of the checkpoint, with its qwen.tiktoken")
    source.add_argument("--download", type=Path, help="or what download.py wrote about a model of the hub")
    p.add_argument("--model", required=True, help="the model's name in the study")
    p.add_argument("--out", type=Path, required=True, help="folder to write")
    cli.run(main, p)
