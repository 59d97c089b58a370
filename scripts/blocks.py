"""Which block each strategy removes for each n: blocks.csv."""

from pathlib import Path

from deeper_layers import program
from deeper_layers.blocks import STRATEGIES, choose, read_distances, write_choices
from deeper_layers.errors import UserError


def main(arguments):
    distances = read_distances(arguments.distances)
    n_layers = max(n for _, n in distances)
    remove = arguments.remove or range(1, n_layers)
    too_many = [n for n in remove if n >= n_layers]
    if too_many:
        raise UserError(f"study.remove: the model has {n_layers} layers, so n = {too_many[0]} leaves none")
    choices = choose(arguments.strategies, list(remove), n_layers, distances)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_choices(arguments.out, choices)


if __name__ == "__main__":
    p = program.parser(__doc__)
    p.add_argument("--distances", type=Path, required=True, help="distances.csv of the model")
    p.add_argument("--strategies", nargs="+", choices=sorted(STRATEGIES), default=["similarity"])
    p.add_argument("--remove", nargs="*", type=int, help="numbers of layers n to remove; none: 1..L-1")
    p.add_argument("--out", type=Path, required=True, help="blocks.csv to write")
    program.run(main, p)
