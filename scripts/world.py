"""Invent a world of people: training, calibration and held-out text, and lm-eval tasks about it."""

from pathlib import Path

from deeper_layers import program
from deeper_layers.world import World, write_world

p = program.parser(__doc__)
p.add_argument("--out", type=Path, required=True, help="folder for *.jsonl and tasks/")
p.add_argument("--seed", type=int, default=0, help="another seed is another world")
p.add_argument("--people", type=int, default=80, help="people in the world, 10 or more")
p.add_argument("--train", type=int, default=20_000, help="documents to train and heal on")
p.add_argument("--calibration", type=int, default=500, help="documents to measure distances on")
p.add_argument("--validation", type=int, default=500, help="held-out documents to measure the loss on")
p.add_argument("--questions", type=int, default=200, help="questions of each task, at most")


def main(a) -> None:
    world = World(a.seed, a.people)
    counts = {"train": a.train, "calibration": a.calibration, "validation": a.validation}
    write_world(a.out, world, a.questions, **counts)
    print(f"{a.out}: {counts} documents of {a.people} people")


if __name__ == "__main__":
    program.run(main, p)
