"""How a checkpoint's tensors are named: which belong to which decoder layer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError
from ..pruning.layer_set import LayerSet
from .decoder_config import Decoder
from .folder import Checkpoint
from .vocabulary import EMBEDDING


@dataclass(frozen=True)
class LayerNames:
    """How a checkpoint's tensors are named: ``prefix``.INDEX.rest for those of layer INDEX of L."""

    prefix: str
    n_layers: int

    def index(self, name: str) -> int | None:
        """The layer that a tensor belongs to, None if to none. L and above are layers for multi-token
        prediction, which this transformers does not run and which no cut keeps."""
        prefix, index, _ = split_name(name)
        return index if prefix == self.prefix else None

    def after(self, name: str, block: LayerSet) -> str | None:
        """The tensor's name once ``block`` is removed; None if it goes with it."""
        index = self.index(name)
        if index is None:
            return name
        if index >= self.n_layers or (new := block.new_index(index)) is None:
            return None
        return ".".join([*filter(None, [self.prefix]), str(new), split_name(name)[2]])


def split_name(name: str) -> tuple[str, int | None, str]:
    """A tensor name at its first number: 'model.layers.3.mlp.up' -> ('model.layers', 3, 'mlp.up')."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isascii() and part.isdigit() and len(part) < 10:
            return ".".join(parts[:i]), int(part), ".".join(parts[i + 1 :])
    return name, None, ""


def layer_names(checkpoint: Checkpoint, decoder: Decoder) -> LayerNames:
    """Find the decoder layers among the tensor names.

    Raises UserError if the weights do not have the number of layers, or an embedding of the size, that the
    config says.
    """
    n_layers = decoder.n_layers
    found: dict[str, set[int]] = {}
    for name in checkpoint.tensors:
        prefix, index, _ = split_name(name)
        if index is not None:
            found.setdefault(prefix, set()).add(index)
    last = n_layers + decoder.prediction_layers
    fits = [p for p, at in found.items() if set(range(n_layers)) <= at and max(at) < last]
    if len(fits) > 1:
        decoders = [p for p in fits if re.search(r"language|text|decoder", p)]
        sightless = [p for p in fits if not re.search(r"vision|visual|image|audio", p)]
        fits = next((found for found in (decoders, sightless) if len(found) == 1), fits)
    if len(fits) == 1:
        _check_embedding(checkpoint, decoder)
        return LayerNames(fits[0], n_layers)
    if fits:
        raise UserError(f"{checkpoint.folder}: which of {', '.join(sorted(fits))} are the decoder layers?")
    most = max(found, key=lambda p: len(found[p]), default=None)
    held = f"{len(found[most])} ({most}.*)" if most is not None else "none"
    raise UserError(
        f"{checkpoint.folder}: config.json says {n_layers} layers, but the weights hold {held}; "
        "one of the two belongs to another model"
    )


def _check_embedding(checkpoint: Checkpoint, decoder: Decoder) -> None:
    """Raise if the token embedding is smaller or of another width than the config says. A few models add
    rows to it; ``verify_checkpoint`` checks every shape."""
    size = decoder.vocabulary, decoder.width
    for name, tensor in checkpoint.tensors.items():
        if EMBEDDING.search(name) and (tensor.shape[:1] < size[:1] or tensor.shape[1:] != size[1:]):
            raise UserError(
                f"{checkpoint.folder}: config.json says {size[0]} tokens of width {size[1]}, but {name} is "
                f"{' x '.join(map(str, tensor.shape))}; one of the two belongs to another model"
            )
