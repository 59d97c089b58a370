"""Heal a cut model: by default train a LoRA adapter on it with the paper's recipe (appendix A.1)."""

import argparse
from dataclasses import fields
from pathlib import Path

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.errors import UserError
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.methods import DEFAULT, METHODS, healing_method
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports


def method_option(p):
    meaning = "What heals; of the options below, settings are its own."
    p.add_argument("--method", choices=METHODS, default=DEFAULT, help=meaning)
    return p


def main(arguments):
    files = HealingFiles(*(getattr(arguments, one.name) for one in fields(HealingFiles)))
    healing_method(arguments.method).heal(files, arguments.settings, arguments.trust_remote_code)


def check(arguments) -> None:
    """Refuse what the method lacks, and what the model cannot follow."""
    for name in sorted(healing_method(arguments.method).needs(arguments.settings)):
        if getattr(arguments, name) is None:
            raise UserError(f"healing: {arguments.method} needs --{name}")
    if hasattr(arguments, "precision"):
        check_arguments(arguments, {"--length": getattr(arguments, "length", None)})


def block_imports(arguments):
    """A method without a precision may import anything."""
    return optional_imports(arguments) if hasattr(arguments, "precision") else []


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(
        p,
        checkpoint="Folder of the cut model.",
        state="Folder to resume from, removed when done.",
        out="Folder for the artifact and heal.json.",
    )
    p.add_argument("--tokens", type=Path, help="Token file of the text to train on.")
    p.add_argument("--full", type=Path, help="Folder of the uncut model, for methods that learn from it.")
    p.add_argument("--repair", type=Path, help="File of tensors that repair the cut before.")
    method_option(p)
    named, _ = method_option(argparse.ArgumentParser(add_help=False, allow_abbrev=False)).parse_known_args()
    cli.add_settings(p, healing_method(named.method).SETTINGS)
    cli.run(main, p, block_imports, check)
