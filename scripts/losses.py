"""Losses that strategies choose by, of all cuts of one model that may be chosen, on calibration text: of
blocks (block_losses.csv), of single layers (layer_losses.csv), or of each step of a greedy search
(greedy_losses.csv: SLEB, ICML 2024).

python scripts/losses.py --kind greedy_losses --checkpoint results/M/checkpoints/full --remove 8 \\
    --tokens results/M/tokens/c4-calibration.safetensors --out results/M/greedy_losses.csv
"""

import hashlib
import json

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.pruning.strategy import SECTIONS, Evidence
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import read_json, sha256, write_json
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.losses import ChoiceLossSettings
from deeper_layers.settings.strategies import StrategySettings

HEADERS = {
    "block_losses": ("first", "n", "loss", "stderr"),
    "layer_losses": ("layer", "loss", "stderr"),
    "greedy_losses": ("n", "layer", "loss", "stderr"),
}
DETERMINING = ("samples", "length", "precision")


def journal(arguments):
    """The file that keeps what was measured: of this model, text, settings and code."""
    facts = {key: getattr(arguments, key) for key in (*DETERMINING, "code")}
    facts |= {"model": sha256(arguments.checkpoint / MANIFEST), "tokens": sha256(arguments.tokens)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return arguments.out.parent / ".losses" / f"{arguments.out.stem}-{key}.jsonl"


def main(arguments):
    from deeper_layers.data.tokens import Tokens
    from deeper_layers.importance.losses import (
        MeasuredLosses,
        block_losses,
        greedy_losses,
        layer_losses,
        write_rows,
    )
    from deeper_layers.models.load import load_model
    from deeper_layers.runtime.provenance import provenance

    n_layers = read_json(arguments.checkpoint / MANIFEST)["n_layers"]
    ns = range(1, n_layers) if arguments.remove is None else arguments.remove
    documents = Tokens(arguments.tokens).first(arguments.samples, arguments.length)

    def model():
        return load_model(arguments.checkpoint, arguments.precision, arguments.trust_remote_code)

    measured = MeasuredLosses(model, documents, journal(arguments), arguments.batch)
    if arguments.kind == "block_losses":
        rows = block_losses(measured, ns, n_layers)
    elif arguments.kind == "layer_losses":
        rows = layer_losses(measured, n_layers)
    else:
        protected = StrategySettings(rule="greedy", protect=tuple(arguments.protect))
        free = Evidence(settings=protected).free(n_layers)
        rows = greedy_losses(measured, max(ns, default=0), free, n_layers)
    write_rows(arguments.out, HEADERS[arguments.kind], rows)
    facts = {key: getattr(arguments, key) for key in DETERMINING} | {"layers": measured.cost}
    write_json(arguments.out.with_suffix(".json"), provenance(checkpoint=arguments.checkpoint, **facts))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(
        p,
        checkpoint="Folder of the uncut model.",
        tokens="Token file of the calibration text.",
        out="CSV to write; a .json beside it says how many layers were run.",
    )
    kinds = sorted(kind for kind, section in SECTIONS.items() if section == "losses")
    p.add_argument("--kind", choices=kinds, required=True, help="Of which cuts.")
    meaning = "Numbers of layers to remove, n; none for no cuts. Default is 1..L-1."
    p.add_argument("--remove", nargs="*", type=int, help=meaning)
    meaning = "Of greedy_losses: layers that stay; negative ones count from the end."
    p.add_argument("--protect", nargs="*", type=int, default=[], help=meaning)
    p.add_argument("--code", default="", help="Hash of the code; other code measures anew.")
    cli.add_settings(p, ChoiceLossSettings)
    cli.run(main, p, optional_imports, lambda a: check_arguments(a, {"--length": a.length}))
