"""Which block each strategy removes for each n: blocks.csv."""

from pathlib import Path

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.errors import UserError
from deeper_layers.pruning.choices import choose, write_choices
from deeper_layers.pruning.published_blocks import published_blocks
from deeper_layers.pruning.strategies import BY_DISTANCE, STRATEGIES, read_distances
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import read_json, replacing


def main(arguments):
    manifest = read_json(arguments.checkpoint / MANIFEST)
    n_layers = manifest["n_layers"]
    remove = range(1, n_layers) if arguments.remove is None else arguments.remove
    too_many = [n for n in remove if n >= n_layers]
    if too_many:
        raise UserError(f"study.remove: the model has {n_layers} layers, so n = {too_many[0]} leaves none")
    needing = [s for s in arguments.strategies if s in BY_DISTANCE]
    if needing and not arguments.distances:
        raise UserError(f"the strategy {needing[0]} chooses by distance: give --distances")
    distances = read_distances(arguments.distances) if arguments.distances else None
    authors = published_blocks(manifest["source"]["id"])
    for block in authors.values():
        block.kept(n_layers)
    choices = choose(arguments.strategies, remove, n_layers, distances, authors)
    with replacing(arguments.out) as aside:
        write_choices(aside, choices)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the uncut model")
    p.add_argument("--distances", type=Path, help="its distances.csv, for strategies that choose by it")
    p.add_argument("--strategies", nargs="+", choices=sorted(STRATEGIES), default=["similarity"])
    p.add_argument("--remove", nargs="*", type=int, help="layers to remove, n, maybe none; without it 1..L-1")
    p.add_argument("--out", type=Path, required=True, help="blocks.csv to write")
    cli.run(main, p)
