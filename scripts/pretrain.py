"""Train a small Llama from scratch on a jsonl file and write it as a Hugging Face checkpoint."""

from pathlib import Path

from deeper_layers.pretraining.pretrain import Recipe, pretrain
from deeper_layers.runtime import cli

p = cli.parser(__doc__)
p.add_argument("--text", type=Path, required=True, help='lines {"text": ...}')
p.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
p.add_argument("--threads", type=int, help="CPU threads; none: torch decides")
cli.add_settings(p, Recipe)


def main(a) -> None:
    import torch

    if a.threads:
        torch.set_num_threads(a.threads)
    pretrain(a.text, a.out, Recipe.of(vars(a)))


if __name__ == "__main__":
    cli.run(main, p)
