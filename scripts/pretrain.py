"""Train a small Llama from scratch on a jsonl file and write it as a Hugging Face checkpoint."""

from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.model import Pretraining


def main(arguments) -> None:
    import torch

    from deeper_layers.pretraining.pretrain import pretrain

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    pretrain(arguments.text, arguments.out, arguments.settings)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, text='Lines {"text": ...}.', out="Folder of the checkpoint.")
    p.add_argument("--threads", type=int, help="CPU threads. Default is what torch takes.")
    cli.add_settings(p, Pretraining)
    cli.run(main, p, optional_imports)
