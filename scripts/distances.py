"""Angular distances of all pairs of layers of one model: distances.csv (paper, figures 1c and 4)."""

from pathlib import Path

from deeper_layers import program


def main(arguments):
    from deeper_layers.distances import angular_distances, streamed_distances
    from deeper_layers.files import write_json
    from deeper_layers.models import load_model
    from deeper_layers.provenance import provenance
    from deeper_layers.stream import Stream
    from deeper_layers.tokens import Tokens

    documents = Tokens(arguments.tokens).first(arguments.samples, arguments.length)
    model = arguments.checkpoint, arguments.precision, arguments.trust_remote_code
    if arguments.stream:
        distances = streamed_distances(Stream(*model), documents, arguments.batch_tokens, arguments.spill)
    else:
        distances = angular_distances(load_model(*model), documents, arguments.batch_tokens)
    distances.write(arguments.out)
    settings = {key: getattr(arguments, key) for key in ("samples", "length", "precision", "stream")}
    write_json(arguments.out.with_suffix(".json"), provenance(checkpoint=arguments.checkpoint, **settings))


if __name__ == "__main__":
    p = program.parser(__doc__)
    program.compute_options(p)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the uncut model")
    p.add_argument("--tokens", type=Path, required=True, help="token file of the calibration text")
    p.add_argument("--samples", type=int, default=10000, help="how many documents, from the first")
    p.add_argument("--length", type=int, default=2048, help="cut documents to this many tokens")
    p.add_argument("--precision", choices=["fp32", "bf16", "nf4"], default="bf16")
    p.add_argument("--batch-tokens", type=int, default=16384, help="tokens of a batch, padding counted")
    p.add_argument("--stream", action="store_true", help="read one layer at a time: for models beyond memory")
    p.add_argument("--spill", type=Path, help="with --stream: folder for hidden states; none: in memory")
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    p.add_argument("--out", type=Path, required=True, help="distances.csv to write; a .json beside it")
    program.run(main, p, program.unused)
