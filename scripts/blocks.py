"""Which block each strategy removes for each n: blocks.csv."""

import json
from pathlib import Path

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.errors import UserError
from deeper_layers.pruning.choices import write_choices
from deeper_layers.pruning.selection import choose
from deeper_layers.pruning.strategies import STRATEGIES, needed
from deeper_layers.pruning.strategy import Evidence
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import atomic_write, read_json
from deeper_layers.settings.strategies import StrategySettings
from deeper_layers.settings.study import StudySettings


def rules(arguments) -> dict[str, StrategySettings]:
    """Each strategy's rule with its settings."""
    own = json.loads(arguments.rules)
    found = {name: StrategySettings.of({"rule": name} | own.get(name, {})) for name in arguments.strategies}
    for settings in found.values():
        if settings.rule not in STRATEGIES:
            known = ", ".join(sorted(STRATEGIES))
            raise UserError(f"the strategy {settings.rule} is not known; known: {known}")
    return found


def main(arguments):
    manifest = read_json(arguments.checkpoint / MANIFEST)
    n_layers = manifest["n_layers"]
    remove = range(1, n_layers) if arguments.remove is None else arguments.remove
    too_many = [n for n in remove if n >= n_layers]
    if too_many:
        raise UserError(f"study.remove: the model has {n_layers} layers, so n = {too_many[0]} leaves none")
    chosen_by, files = rules(arguments), dict(named.split("=", 1) for named in arguments.evidence)
    for name in needed(chosen_by.values()):
        if name not in files:
            raise UserError(f"a strategy chooses by {name}: give --evidence {name}=FILE")
    evidence = Evidence(manifest["source"]["id"], {name: Path(path) for name, path in files.items()})
    choices = choose(chosen_by, remove, n_layers, evidence)
    for choice in choices:
        choice.block.kept(n_layers)
    with atomic_write(arguments.out) as temporary:
        write_choices(temporary, choices)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_paths(p, checkpoint="Folder of the uncut model.", out="blocks.csv to write.")
    cli.add_settings(p, StudySettings, "strategies")
    meaning = "What was measured, as NAME=FILE: distances=distances.csv."
    p.add_argument("--evidence", nargs="*", default=[], help=meaning)
    meaning = 'Settings of strategies, JSON: {"a": {"rule": "random", "seed": 1}}.'
    p.add_argument("--rules", default="{}", help=meaning)
    meaning = "Numbers of layers to remove, n; none for no cuts. Default is 1..L-1."
    p.add_argument("--remove", nargs="*", type=int, help=meaning)
    cli.run(main, p)
