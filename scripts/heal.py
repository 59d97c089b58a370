"""Heal a cut model: train a LoRA adapter on it, by default with the paper's recipe (appendix A.1)."""

from dataclasses import fields
from pathlib import Path

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.healing.method import HealingFiles
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.healing import Healing


def main(arguments):
    from deeper_layers.healing.lora_training import heal

    files = HealingFiles(*(getattr(arguments, one.name) for one in fields(HealingFiles)))
    heal(files, arguments.settings, arguments.trust_remote_code)


def check(arguments) -> None:
    """Refuse what the model cannot follow."""
    check_arguments(arguments, {"--length": arguments.length})


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.compute_options(p)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the cut model")
    p.add_argument("--tokens", type=Path, required=True, help="token file of the text to train on")
    cli.add_settings(p, Healing)
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    p.add_argument("--state", type=Path, required=True, help="folder to resume from, removed when done")
    p.add_argument("--out", type=Path, required=True, help="folder for adapter/, training.csv, heal.json")
    cli.run(main, p, optional_imports, check)
