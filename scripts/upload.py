"""Upload an exported checkpoint to the Hugging Face hub, as a private model."""

from pathlib import Path

from deeper_layers.runtime import cli


def main(arguments) -> None:
    from deeper_layers.export.upload import push
    from deeper_layers.runtime.files import write_json

    write_json(arguments.out, push(arguments.folder, arguments.id))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--folder", type=Path, required=True, help="folder that merge.py wrote")
    p.add_argument("--id", required=True, help="model id, OWNER/NAME")
    p.add_argument("--out", type=Path, required=True, help="JSON to write: id and commit")
    cli.run(main, p)
