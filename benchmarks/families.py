"""The cuts of one model evaluated at once, against the unpruned model alone, and one job for each block."""

import sys
from pathlib import Path

import common
from common import SCRIPTS, alternating, figure, median_row, ratio, report, run, seconds_of, target

SHAPE = dict(layers=12, width=96, ffn=256, heads=3, vocabulary=320)  # about the size of the default study's
# The blocks of n = 1 to 8 in the default study, by its two strategies.
DEEPEST = [f"drop_{11 - n}-10" for n in range(1, 9)]
SIMILAR = [f"drop_{span}" for span in ("10-10", "9-10", "9-11", "4-7", "4-8", "4-9", "4-10", "3-10")]
STUDY = list(dict.fromkeys(DEEPEST + SIMILAR))
SEQUENCES, LENGTH = 300, 128


def main(place: Path) -> None:
    from deeper_layers.data.tokens import write_tokens
    from deeper_layers.evaluation.cut_scorer import CutScorer
    from deeper_layers.evaluation.loss import losses
    from deeper_layers.models.load import load_model
    from deeper_layers.pruning.layer_set import FULL, LayerSet

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

    # Small models are fastest with one thread, which is what their jobs get.
    import torch

    torch.set_num_threads(1)
    model = load_model(place / "m")
    families = {
        "unpruned": CutScorer(model, [FULL]),
        "deepest": CutScorer(model, [FULL, *map(LayerSet.parse, DEEPEST)]),
        "similar": CutScorer(model, [FULL, *map(LayerSet.parse, SIMILAR)]),
    }
    subjects = {
        name: seconds_of(lambda name=name: losses(families[name], documents, name)) for name in families
    }
    subjects["unpruned"]()
    times = alternating(subjects, repeats=5)
    counts = {name: family.layer_counts() for name, family in families.items()}

    numbers = iter(range(1000))

    def job(*names: str) -> float:
        words = [SCRIPTS / "evaluate.py", "--checkpoint", place / "m", "--blocks", *names, "--suite", "loss"]
        words += ["--loss", "--tokens", place / "text.safetensors", "--sequences", SEQUENCES]
        words += ["--length", LENGTH, "--precision", "fp32", "--threads", 1, "--gpus", 0]
        return run(sys.executable, *words, "--out", place / f"out-{next(numbers)}").seconds

    jobs = alternating(
        {
            "together": lambda: job("full", *STUDY),
            "apart": lambda: sum(job(name) for name in ["full", *STUDY]),
        },
        repeats=2,
    )

    def layers(name: str) -> dict:
        return {"layers": counts[name]["run"] / counts["unpruned"]["run"] * SHAPE["layers"]}

    report(
        [
            median_row("unpruned model", times["unpruned"], **layers("unpruned")),
            median_row("with its cuts of n = 1 to 8, deepest", times["deepest"], **layers("deepest")),
            median_row("with its cuts of n = 1 to 8, similarity", times["similar"], **layers("similar")),
            median_row(f"evaluate.py, one job for both, {len(STUDY)} cuts", jobs["together"]),
            median_row(f"evaluate.py, a job for each of these {len(STUDY) + 1} models", jobs["apart"]),
        ],
        [
            target(
                "all n, deepest / unpruned alone", ratio(times["deepest"], times["unpruned"]), 2.5, WHY_TREE
            ),
            target(
                "all n, similarity / unpruned alone",
                ratio(times["similar"], times["unpruned"]),
                2.5,
                WHY_TREE,
            ),
            target(
                "a job each / one job for all",
                ratio(jobs["apart"], jobs["together"]),
                4,
                "More of a job than its imports is shared only as far as the cuts share layers.",
                at_least=True,
            ),
            figure(
                "all n, similarity: layers run / layers of separate evaluations",
                counts["similar"]["run"] / counts["similar"]["separate"],
            ),
        ],
        f"Llama, {SHAPE['layers']} layers, width {SHAPE['width']}, the shape of the default study, fp32, one "
        f"thread; held-out loss of {SEQUENCES} sequences of 16 to {LENGTH} tokens. Cuts by similarity: "
        f"{', '.join(SIMILAR)}; deepest: {DEEPEST[0]} to {DEEPEST[-1]}.",
    )


WHY_TREE = (
    "The head and the loss run once for each cut, and at this width they are a large part of a pass; layers "
    "after the forks are counted in the table."
)

if __name__ == "__main__":
    common.program(main)
