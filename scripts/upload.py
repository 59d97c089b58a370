"""Upload an exported checkpoint to the Hugging Face hub, as a private model."""

from deeper_layers.runtime import cli


def main(arguments) -> None:
    from deeper_layers.export.upload import push
    from deeper_layers.runtime.files import write_json

    write_json(arguments.out, push(arguments.folder, arguments.id))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, folder="Folder that merge.py wrote.", out="JSON to write: id and commit.")
    p.add_argument("--id", required=True, help="Model id, OWNER/NAME.")
    cli.run(main, p)
