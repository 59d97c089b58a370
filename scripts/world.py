"""Invent a world of people: training, calibration and held-out text, and lm-eval tasks about it."""

from deeper_layers.data.world import World, write_world
from deeper_layers.runtime import cli
from deeper_layers.settings.texts import SPLITS, WorldSettings


def main(arguments) -> None:
    settings = arguments.settings
    world = World(settings.seed, settings.people)
    counts = {split: getattr(settings, split) for split in SPLITS}
    write_world(arguments.out, world, settings.questions, **counts)
    print(f"{arguments.out}: {counts} documents of {settings.people} people")


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, out="Folder for *.jsonl and tasks/.")
    cli.add_settings(p, WorldSettings)
    cli.run(main, p)
