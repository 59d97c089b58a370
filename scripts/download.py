"""Fetch a model of the Hugging Face hub into its cache: safetensors, configuration and tokenizer only."""

import json
from pathlib import Path

from deeper_layers.runtime import cli
from deeper_layers.runtime.progress import echo
from deeper_layers.settings.model import Model


def main(arguments):
    from deeper_layers.checkpoints.hub import download
    from deeper_layers.checkpoints.limits import check
    from deeper_layers.checkpoints.quantised import Asked
    from deeper_layers.runtime.files import read_json, write_json

    name = arguments.model or arguments.id
    asked = Asked(**arguments.asked.get(name, {}))

    def suits(config: Path) -> None:
        for line in check(read_json(config), name, asked, config.parent):
            echo(f"warning: {line}")

    write_json(arguments.out, download(arguments.id, arguments.revision, arguments.trust_remote_code, suits))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--id", required=True, help="Model id, OWNER/NAME.")
    cli.add_settings(p, Model, "revision")
    cli.add_flags(p, trust_remote_code="Fetch the Python files as well.")
    p.add_argument("--model", help="The model's name in the study. Default is its id.")
    meaning = "JSON: what is asked of each model (limits.Asked)."
    p.add_argument("--asked", type=json.loads, default={}, help=meaning)
    cli.add_paths(p, out="JSON to write: commit and folder in the cache.")
    cli.run(main, p)
