"""Which layers go first by Block Influence that is measured again as they go: iterative_influence.csv."""

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.pruning.strategy import Evidence
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import read_json
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.distances import DistanceSettings
from deeper_layers.settings.strategies import StrategySettings


def main(arguments):
    from deeper_layers.importance.iterative import iterative_influence
    from deeper_layers.importance.passes import measure

    n_layers = read_json(arguments.checkpoint / MANIFEST)["n_layers"]
    ns = range(1, n_layers) if arguments.remove is None else arguments.remove
    protected = StrategySettings(rule="iterative", protect=tuple(arguments.protect))
    free = Evidence(settings=protected).free(n_layers)
    how = max(ns, default=0), arguments.step, free
    arguments.stream = False  # one layer at a time there is no model to take layers out of
    measure(arguments, lambda model, texts, tokens: iterative_influence(model, texts, *how, tokens), None)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(
        p,
        checkpoint="Folder of the uncut model.",
        tokens="Token file of the calibration text.",
        out="iterative_influence.csv to write; a .json beside it.",
    )
    meaning = "Numbers of layers to remove, n; none for no cuts. Default is 1..L-1."
    p.add_argument("--remove", nargs="*", type=int, help=meaning)
    meaning = "Layers that stay; negative ones count from the end."
    p.add_argument("--protect", nargs="*", type=int, default=[], help=meaning)
    cli.add_settings(p, StrategySettings, "step")
    cli.add_settings(p, DistanceSettings, "samples", "length", "precision", "batch_tokens")
    cli.run(main, p, optional_imports, lambda a: check_arguments(a, {"--length": a.length}))
