"""Train a small Llama from scratch on a jsonl file and write it as a Hugging Face checkpoint."""

from dataclasses import fields
from pathlib import Path

from deeper_layers import program
from deeper_layers.pretrain import Recipe, pretrain

HELP = {
    "layers": "decoder layers",
    "width": "size of the residual stream",
    "heads": "attention heads",
    "ffn": "inner size of the MLP",
    "steps": "training steps",
    "batch": "rows a step",
    "length": "tokens a row",
    "seed": "of weights and document order",
    "muon": "peak learning rate of the matrices",
    "decay": "weight decay of the matrices",
    "adamw": "peak learning rate of embeddings and norms",
    "warmup": "steps of rising learning rate",
    "cooldown": "share of the steps over which the learning rate falls to zero",
    "spread": "standard deviation of the embeddings at the start",
}

p = program.parser(__doc__)
p.add_argument("--text", type=Path, required=True, help='lines {"text": ...}')
p.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
p.add_argument("--threads", type=int, help="CPU threads; none: torch decides")
for field in fields(Recipe):
    p.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=HELP[field.name])


def main(a) -> None:
    import torch

    if a.threads:
        torch.set_num_threads(a.threads)
    pretrain(a.text, a.out, Recipe(**{field.name: getattr(a, field.name) for field in fields(Recipe)}))


if __name__ == "__main__":
    program.run(main, p)
