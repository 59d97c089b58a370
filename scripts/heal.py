"""Heal a cut model: train a LoRA adapter on it, by default with the paper's recipe (appendix A.1)."""

from dataclasses import fields
from pathlib import Path

from deeper_layers import program


def main(arguments):
    from deeper_layers.heal import Recipe, heal

    settings = {field.name: getattr(arguments, field.name) for field in fields(Recipe)}
    heal(
        arguments.checkpoint,
        arguments.tokens,
        arguments.out,
        arguments.state,
        Recipe(**settings),
        arguments.micro_batch,
        arguments.checkpointing,
        arguments.save_every,
        arguments.trust_remote_code,
    )


if __name__ == "__main__":
    p = program.parser(__doc__)
    program.compute_options(p)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the cut model")
    p.add_argument("--tokens", type=Path, required=True, help="token file of the text to train on")
    p.add_argument("--rank", type=int, default=64, help="LoRA rank")
    p.add_argument("--alpha", type=float, help="LoRA alpha; none: the rank")
    p.add_argument("--dropout", type=float, default=0.05, help="LoRA dropout")
    p.add_argument("--targets", nargs="+", default=["auto"], help="linear layers to adapt; auto: the FFN")
    p.add_argument("--learning-rate", type=float, default=3e-4, help="peak learning rate")
    p.add_argument("--schedule", default="cosine", help="learning rate after the warm-up")
    p.add_argument("--warmup", type=int, default=100, help="steps of linear warm-up")
    p.add_argument("--steps", type=int, default=5000, help="optimiser steps")
    p.add_argument("--batch", type=int, default=16, help="rows of a step")
    p.add_argument("--length", type=int, default=2048, help="tokens of a row")
    p.add_argument(
        "--packing", action="store_true", help="several documents a row, that do not see each other"
    )
    p.add_argument(
        "--precision", choices=["nf4", "bf16", "fp32"], default="nf4", help="of the frozen weights"
    )
    p.add_argument("--weight-decay", type=float, default=0.0, help="weight decay of AdamW")
    p.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient")
    p.add_argument("--seed", type=int, default=0, help="seed of adapter, order and dropout")
    p.add_argument(
        "--micro-batch", type=int, help="rows at once, halved when memory runs out; none: the batch"
    )
    p.add_argument(
        "--checkpointing",
        choices=["auto", "on", "off"],
        default="auto",
        help="gradient checkpointing; auto: when not even one row fits without",
    )
    p.add_argument("--save-every", type=float, default=600, help="seconds between checkpoints to resume from")
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    p.add_argument("--state", type=Path, required=True, help="folder to resume from, removed when done")
    p.add_argument("--out", type=Path, required=True, help="folder for adapter/, training.csv, heal.json")
    program.run(main, p, program.unused)
