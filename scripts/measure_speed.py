"""Measure the memory and the speed of every cut of a checkpoint, in one process."""

from pathlib import Path

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import read_json, replacing, write_json
from deeper_layers.runtime.progress import echo
from deeper_layers.settings.speed import SpeedSettings


def main(arguments) -> None:
    from deeper_layers.evaluation.speed import Workload, measure
    from deeper_layers.models.load import load_model
    from deeper_layers.runtime.provenance import provenance

    manifest = read_json(arguments.checkpoint / MANIFEST)
    blocks = [LayerSet.parse(name) for name in arguments.blocks]
    for block in blocks:
        block.kept(manifest["n_layers"])
    settings = {name: getattr(arguments, name) for name in ("batch", "prompt", "new")}
    model = load_model(arguments.checkpoint, arguments.precision, arguments.trust_remote_code)
    name = f"speed of {manifest['model']}"
    rows = measure(model, manifest, blocks, Workload(**settings), arguments.repeats, name)
    with replacing(arguments.out) as aside:
        rows.to_csv(aside, index=False, float_format="%.8g", lineterminator="\n")
    facts = settings | {"repeats": arguments.repeats, "precision": arguments.precision}
    write_json(arguments.out.with_suffix(".json"), provenance(model=manifest["model"], **facts))
    echo(told(rows, arguments.out))


def told(rows, path: Path) -> str:
    """What was measured, for the person who asked for it: a line a cut."""
    from deeper_layers.reporting.text import si

    lines = [f"{'cut':12} {'memory':>9} {'prompt':>11} {'writing':>11}   tokens/s ({path})"]
    for row in rows.to_dict("records"):
        memory = si(row["memory_bytes"], "B")
        speeds = [si(row[name]) for name in ("prefill", "decode")]
        lines.append(f"{row['block']:12} {memory:>9} {speeds[0]:>11} {speeds[1]:>11}")
    return "\n".join(lines)


def check(arguments) -> None:
    """Refuse what the model cannot follow."""
    check_arguments(arguments, {"--prompt and --new": arguments.prompt + arguments.new})


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.compute_options(p)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder of the uncut model")
    p.add_argument("--blocks", nargs="+", required=True, help="cuts to measure, as full drop_3-5")
    cli.add_settings(p, SpeedSettings)
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    p.add_argument("--out", type=Path, required=True, help="CSV to write; a JSON beside it says how")
    cli.run(main, p, check=check)
