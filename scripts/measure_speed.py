"""Measure the memory and the speed of every cut of a checkpoint, in one process."""

from dataclasses import asdict

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import atomic_write, read_json, write_json
from deeper_layers.runtime.progress import echo
from deeper_layers.settings.speed import SpeedSettings


def main(arguments) -> None:
    from deeper_layers.evaluation.speed import measure, table_lines
    from deeper_layers.models.load import load_model
    from deeper_layers.runtime.provenance import provenance

    manifest = read_json(arguments.checkpoint / MANIFEST)
    blocks = [LayerSet.parse(name) for name in arguments.blocks]
    for block in blocks:
        block.kept(manifest["n_layers"])
    model = load_model(arguments.checkpoint, arguments.precision, arguments.trust_remote_code)
    rows = measure(model, manifest, blocks, arguments.settings, f"speed of {manifest['model']}")
    with atomic_write(arguments.out) as temporary:
        rows.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
    facts = provenance(model=manifest["model"], **asdict(arguments.settings))
    write_json(arguments.out.with_suffix(".json"), facts)
    echo(table_lines(rows, arguments.out))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(p, checkpoint="Folder of the uncut model.", out="CSV to write; a JSON beside it says how.")
    p.add_argument("--blocks", nargs="+", required=True, help="Cuts to measure, as full drop_3-5.")
    cli.add_settings(p, SpeedSettings)
    cli.run(main, p, check=lambda a: check_arguments(a, {"--prompt and --new": a.prompt + a.new}))
