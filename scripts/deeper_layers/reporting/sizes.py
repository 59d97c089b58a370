"""How much is left of a model without a block of its layers. No torch, no pandas."""

from __future__ import annotations

from ..pruning.blocks import Block

SPEEDS = ["prefill", "decode"]  # tokens a second, in speed.csv and in the table
MEASURED = ["memory_bytes", *[speed + end for speed in SPEEDS for end in ("", "_low", "_high")]]


def size(manifest: dict, block: Block) -> dict:
    """What is left of a model without ``block``, from the manifest of the uncut checkpoint."""
    removed, n_layers = manifest["layers"][block.first : block.last + 1], manifest["n_layers"]
    return {
        "n_layers": n_layers,
        "layers": n_layers - block.n,
        "fraction_removed": block.n / n_layers,
        "parameters": manifest["parameters"] - sum(layer["parameters"] for layer in removed),
        "bytes": manifest["bytes"] - sum(layer["bytes"] for layer in removed),
    }


def scaled(value: float, units: list[str]) -> str:
    """Three digits and a unit: 1360000 -> 1.36 M."""
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:#.3g}".rstrip(".") + unit
        value /= 1000
    return f"{value:#.3g}".rstrip(".") + units[-1]
