"""Block Influence of every layer of one model: influence.csv (ShortGPT, arXiv 2403.03853)."""

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.distances import DistanceSettings


def main(arguments):
    from deeper_layers.data.tokens import Tokens
    from deeper_layers.importance.influence import block_influence, streamed_influence
    from deeper_layers.models.load import load_model
    from deeper_layers.models.streaming import Stream
    from deeper_layers.runtime.files import write_json
    from deeper_layers.runtime.provenance import provenance

    documents = Tokens(arguments.tokens).first(arguments.samples, arguments.length)
    model = arguments.checkpoint, arguments.precision, arguments.trust_remote_code
    if arguments.stream:
        found = streamed_influence(Stream(*model), documents, arguments.batch_tokens, arguments.spill)
    else:
        found = block_influence(load_model(*model), documents, arguments.batch_tokens)
    found.write(arguments.out)
    settings = {key: getattr(arguments, key) for key in ("samples", "length", "precision", "stream")}
    write_json(arguments.out.with_suffix(".json"), provenance(checkpoint=arguments.checkpoint, **settings))


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
