"""Which block each strategy removes for each n: blocks.csv."""

from pathlib import Path

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.errors import UserError
from deeper_layers.pruning.choices import write_choices
from deeper_layers.pruning.selection import choose
from deeper_layers.pruning.strategies import STRATEGIES, needed
from deeper_layers.pruning.strategy import Evidence
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import atomic_write, read_json
from deeper_layers.settings.study import StudySettings


def main(arguments):
    manifest = read_json(arguments.checkpoint / MANIFEST)
    n_layers = manifest["n_layers"]
    remove = range(1, n_layers) if arguments.remove is None else arguments.remove
    too_many = [n for n in remove if n >= n_layers]
    if too_many:
        raise UserError(f"study.remove: the model has {n_layers} layers, so n = {too_many[0]} leaves none")
    given = {name: getattr(arguments, name) for name in needed(STRATEGIES)}
    for strategy in arguments.strategies:
        if strategy not in STRATEGIES:
            raise UserError(f"the strategy {strategy} is not known; known: {', '.join(sorted(STRATEGIES))}")
        for name in sorted(STRATEGIES[strategy].needs):
            if not given[name]:
                raise UserError(f"the strategy {strategy} chooses by {name}: give --{name}")
    evidence = Evidence(manifest["source"]["id"], {name: path for name, path in given.items() if path})
    choices = choose(arguments.strategies, remove, n_layers, evidence)
    for choice in choices:
        choice.block.kept(n_layers)
    with atomic_write(arguments.out) as temporary:
        write_choices(temporary, choices)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, checkpoint="Folder of the uncut model.", out="blocks.csv to write.")
    for name in needed(STRATEGIES):
        p.add_argument(f"--{name}", type=Path, help=f"Its {name}.csv, for strategies that choose by it.")
    cli.add_settings(p, StudySettings, "strategies")
    meaning = "Numbers of layers to remove, n; none for no cuts. Default is 1..L-1."
    p.add_argument("--remove", nargs="*", type=int, help=meaning)
    cli.run(main, p)
