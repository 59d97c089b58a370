"""How much is left of a model without some of its layers. No torch, no pandas."""

from __future__ import annotations

from ..pruning.layer_set import LayerSet


def cut_size(manifest: dict, block: LayerSet) -> dict:
    """Layers, fraction removed, parameters and bytes of a model without ``block``, from the manifest of the
    uncut checkpoint alone."""
    removed, n_layers = [manifest["layers"][i] for i in block.removed], manifest["n_layers"]
    return {
        "n_layers": n_layers,
        "layers": n_layers - block.n,
        "fraction_removed": block.n / n_layers,
        "parameters": manifest["parameters"] - sum(layer["parameters"] for layer in removed),
        "bytes": manifest["bytes"] - sum(layer["bytes"] for layer in removed),
    }
