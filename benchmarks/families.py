"""The cuts of one model evaluated at once, against the unpruned model alone, and one job for each block."""

import sys
from pathlib import Path

import common
from common import SCRIPTS, alternating, median_row, ratio, report, run, seconds_of, target

SHAPE = dict(layers=12, width=96, ffn=256, heads=3, vocabulary=320)  # the model of the default study
# The blocks that similarity chose in the default study, n = 1 to 8.
BLOCKS = [
    "drop_9-9",
    "drop_9-10",
    "drop_7-9",
    "drop_7-10",
    "drop_6-10",
    "drop_5-10",
    "drop_5-11",
    "drop_4-11",
]
SEQUENCES, LENGTH = 400, 128


def main(place: Path) -> None:
    from deeper_layers.blocks import FULL, Block
    from deeper_layers.family import Family
    from deeper_layers.loss import losses
    from deeper_layers.models import load_model
    from deeper_layers.tokens import write_tokens

    common.write_llama(place / "source", **SHAPE)
    run(
        sys.executable,
        SCRIPTS / "adopt.py",
        "--source",
        place / "source",
        "--model",
        "m",
        "--out",
        place / "m",
    )
    documents = common.random_documents(SEQUENCES, 16, LENGTH, SHAPE["vocabulary"])
    write_tokens(place / "text.safetensors", documents)
    blocks = [FULL, *map(Block.parse, BLOCKS)]

    # Small models are fastest with one thread, which is what their jobs get.
    import torch

    torch.set_num_threads(1)
    model = load_model(place / "m")
    together, alone = Family(model, blocks), Family(model, [FULL])
    subjects = {
        "together": seconds_of(lambda: losses(together, documents, "together")),
        "unpruned": seconds_of(lambda: losses(alone, documents, "unpruned")),
    }
    for action in subjects.values():
        action()
    times = alternating(subjects, repeats=5)
    layers = together.layer_counts()

    def job(*names: str) -> float:
        words = [SCRIPTS / "evaluate.py", "--checkpoint", place / "m", "--blocks", *names, "--suite", "loss"]
        words += ["--loss", "--tokens", place / "text.safetensors", "--sequences", SEQUENCES]
        words += ["--length", LENGTH, "--precision", "fp32", "--threads", 1, "--gpus", 0]
        out = place / f"out-{job.number}"
        job.number += 1
        return run(sys.executable, *words, "--out", out).seconds

    job.number = 0
    jobs = alternating(
        {
            "together": lambda: job("full", *BLOCKS),
            "apart": lambda: sum(job(name) for name in ["full", *BLOCKS]),
        },
        repeats=2,
    )
    run_layers, separate = layers["run"], layers["separate"]
    report(
        [
            median_row("unpruned model", times["unpruned"]),
            median_row("unpruned model and 8 cuts, together", times["together"]),
            median_row("evaluate.py, one job for all nine", jobs["together"]),
            median_row("evaluate.py, a job for each of the nine", jobs["apart"]),
        ],
        [
            target("all nine / unpruned alone", ratio(times["together"], times["unpruned"]), 2.5, WHY_TREE),
            target(
                "a job each / one job for all",
                ratio(jobs["apart"], jobs["together"]),
                4,
                "More of a job than its imports is shared only as far as the cuts share layers.",
                at_least=True,
            ),
            target(
                "layers run / layers of separate evaluations",
                run_layers / separate,
                0.5,
                "Cuts that begin early share little.",
            ),
        ],
        f"Llama, {SHAPE['layers']} layers, width {SHAPE['width']}, the shape of the default study, fp32, one "
        f"thread; held-out loss of {SEQUENCES} sequences of 16 to {LENGTH} tokens; cuts {', '.join(BLOCKS)}.",
    )


WHY_TREE = (
    "Behind the forks 8 more layers run for the 12 of the trunk, and the head nine times instead of once; at "
    "this width the head and the loss are a large part of a pass."
)

if __name__ == "__main__":
    with common.workplace() as place:
        main(place)
