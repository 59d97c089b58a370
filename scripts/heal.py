"""Heal a cut model: train a LoRA adapter on it with the paper's recipe.

python scripts/heal.py --checkpoint results/M/checkpoints/drop_3-5 \\
    --tokens results/M/tokens/world-train.safetensors \\
    --out results/M/healed/drop_3-5 --state results/.state/M/healed/drop_3-5
"""

from argparse import Namespace
from dataclasses import fields
from pathlib import Path

from deeper_layers import program


def options():
    p = program.parser("Heal a cut model with a LoRA adapter (paper, appendix A.1).")
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the cut model")
    p.add_argument("--tokens", type=Path, required=True, help="token file to train on")
    p.add_argument("--out", type=Path, required=True, help="folder for adapter/, training.csv and heal.json")
    p.add_argument("--state", type=Path, required=True, help="folder for resumable state, removed at the end")
    p.add_argument("--rank", type=int, default=64, help="LoRA rank")
    p.add_argument("--alpha", type=float, help="LoRA alpha; the rank if not given")
    p.add_argument("--dropout", type=float, default=0.05, help="LoRA dropout")
    p.add_argument("--targets", nargs="+", default=["auto"], help="ends of module names; auto: the FFN")
    p.add_argument("--learning-rate", type=float, default=3e-4, help="peak learning rate")
    p.add_argument("--schedule", default="cosine", help="learning rate schedule after the warm-up")
    p.add_argument("--warmup", type=int, default=100, help="steps of linear warm-up")
    p.add_argument("--steps", type=int, default=5000, help="optimiser steps")
    p.add_argument("--batch", type=int, default=16, help="rows of a step")
    p.add_argument("--length", type=int, default=2048, help="tokens of a row at most")
    p.add_argument("--packing", choices=["true", "false"], default="false", help="several documents a row")
    p.add_argument("--group", type=int, default=1, help="batches sorted together by length (not packed)")
    p.add_argument("--precision", default="nf4", help="of the frozen base: nf4, bf16 or fp32")
    p.add_argument("--weight-decay", type=float, default=0.0, help="of AdamW")
    p.add_argument("--clip", type=float, default=1.0, help="largest gradient norm")
    p.add_argument("--seed", type=int, default=0, help="of the adapter, the order of the rows and dropout")
    p.add_argument(
        "--micro-batch", type=int, help="rows at once; halved when memory runs out (default: batch)"
    )
    p.add_argument(
        "--checkpointing",
        choices=["auto", "on", "off"],
        default="auto",
        help="gradient checkpointing; auto: when one row does not fit without",
    )
    p.add_argument("--save-every", type=float, default=600, help="seconds between resumable checkpoints")
    p.add_argument("--threads", type=int, help="CPU threads")
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    return p


def main(arguments: Namespace) -> None:
    from deeper_layers.heal import Recipe, heal
    from deeper_layers.models import use_threads

    use_threads(arguments.threads)
    settings = {field.name: getattr(arguments, field.name) for field in fields(Recipe)}
    settings.update(targets=tuple(arguments.targets), packing=arguments.packing == "true")
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
    program.run(main, options())
