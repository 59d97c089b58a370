"""Heal a cut model: train a LoRA adapter on it, by default with the paper's recipe (appendix A.1)."""

from dataclasses import fields

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.healing.method import HealingFiles
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.healing import Healing


def main(arguments):
    from deeper_layers.healing.lora_training import heal

    files = HealingFiles(*(getattr(arguments, one.name) for one in fields(HealingFiles)))
    heal(files, arguments.settings, arguments.trust_remote_code)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(
        p,
        checkpoint="Folder of the cut model.",
        tokens="Token file of the text to train on.",
        state="Folder to resume from, removed when done.",
        out="Folder for adapter/, training.csv and heal.json.",
    )
    cli.add_settings(p, Healing)
    cli.run(main, p, optional_imports, lambda a: check_arguments(a, {"--length": a.length}))
