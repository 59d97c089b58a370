"""Block Influence of every layer of one model: influence.csv (ShortGPT, arXiv 2403.03853)."""

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.distances import DistanceSettings


def main(arguments):
    from deeper_layers.importance.influence import block_influence, streamed_influence
    from deeper_layers.importance.passes import measure

    measure(arguments, block_influence, streamed_influence)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(
        p,
        checkpoint="Folder of the uncut model.",
        tokens="Token file of the calibration text.",
        out="influence.csv to write; a .json beside it.",
    )
    cli.add_settings(p, DistanceSettings)
    cli.run(main, p, optional_imports, lambda a: check_arguments(a, {"--length": a.length}))
