"""Invent a world of people: training, calibration and held-out text, and lm-eval tasks about it."""

from pathlib import Path

from deeper_layers.data.world import World, write_world
from deeper_layers.runtime import cli
from deeper_layers.settings import WorldSettings

p = cli.parser(__doc__)
p.add_argument("--out", type=Path, required=True, help="folder for *.jsonl and tasks/")
cli.add_settings(p, WorldSettings)


def main(a) -> None:
    WorldSettings.of(vars(a))
    world = World(a.seed, a.people)
    counts = {"train": a.train, "calibration": a.calibration, "validation": a.validation}
    write_world(a.out, world, a.questions, **counts)
    print(f"{a.out}: {counts} documents of {a.people} people")


if __name__ == "__main__":
    cli.run(main, p)
