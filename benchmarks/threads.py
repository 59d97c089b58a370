"""Healing the embedded model with one thread and with two, which wait for work without spinning or, as is the
default of OpenMP, spinning."""

import json
import sys
from pathlib import Path

import common
from common import alternating, figure, median_row, ratio, report, run, target

SHAPE = dict(layers=12, width=128, ffn=256, heads=4, vocabulary=320)  # the model of the default study
STEPS, BATCH, LENGTH = 12, 16, 128


def healing(place: Path, threads: int, policy: str | None, number: int) -> float:
    """Seconds of training; ``policy`` None is what the program itself sets."""
    out = place / f"healed-{number}"
    own = ["env", "-u", "OMP_WAIT_POLICY", *([f"OMP_WAIT_POLICY={policy}"] if policy else [])]
    options = dict(rank=16, steps=STEPS, warmup=2, batch=BATCH, length=LENGTH, precision="nf4", gpus=0)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    files = ["--checkpoint", place / "model", "--tokens", place / "text.safetensors", "--out", out]
    program = [sys.executable, common.SCRIPTS / "heal.py", *words, "--packing", "--threads", threads]
    run(*own, *program, *files, "--state", place / f"state-{number}")
    return json.loads((out / "heal.json").read_text())["training_seconds"]


def main(place: Path) -> None:
    from deeper_layers.data.tokens import write_tokens

    run(sys.executable, __file__, "write", place / "model")
    write_tokens(place / "text.safetensors", common.random_documents(3000, 8, LENGTH, SHAPE["vocabulary"]))
    numbers = iter(range(1000))
    subjects = {
        "one thread": (1, None),
        "two threads": (2, None),
        "two threads that spin (OMP_WAIT_POLICY=ACTIVE)": (2, "ACTIVE"),
    }
    seconds = alternating(
        {name: lambda how=how: healing(place, *how, next(numbers)) for name, how in subjects.items()},
        repeats=3,
    )
    one, two, spinning = (seconds[name] for name in subjects)
    report(
        [median_row(name, values) for name, values in seconds.items()],
        [
            target(
                "two threads / one thread, seconds of healing",
                ratio(two, one),
                1.5,
                "the threads wait for each other more than they gain: jobs on small models should have one",
            ),
            figure("two spinning threads / one thread", ratio(spinning, one)),
        ],
        f"Llama, {SHAPE['layers']} layers, width {SHAPE['width']}, the shape of the default study, NF4; LoRA "
        f"of rank 16, {STEPS} steps of {BATCH} packed rows of {LENGTH} tokens; seconds of training.",
    )


if __name__ == "__main__":
    common.program(main, SHAPE)
