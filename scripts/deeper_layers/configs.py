"""What removing layers does to a model's configuration. No torch, and transformers is not imported:
the functions work on whatever config object they are given."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

from .blocks import Block
from .errors import UserError

# Lists of layer numbers, and counts of leading layers: renumbered. Every other list with one entry per
# layer (layer_types, no_rope_layers, ...) loses the removed entries.
INDEX_LISTS = {
    "attn_layer_indices",
    "full_attn_idxs",
    "hybrid_layer_ids",
    "mlp_only_layers",
    "moe_layers",
}
LEADING_COUNTS = {"first_k_dense_replace", "max_window_layers", "num_dense_layers"}
_NOT_PER_LAYER = re.compile(r"token_id|multipliers|_limit$|section|^architectures$|^languages$")


def text_config(config):
    """The part of ``config`` that describes the decoder: ``config`` itself unless it is composite."""
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"model type {config.model_type!r} has an encoder; only decoder-only models are cut")
    return config.get_text_config(decoder=True)


def layer_count(config) -> int:
    """L, the number of decoder layers."""
    return text_config(config).num_hidden_layers


def cut_config(config, block: Block):
    """A copy of ``config`` for the model without the layers of ``block``.

    Lists and counts that speak of single layers are edited so that each kept layer stays what it was.
    Raises UserError where that cannot be written in this type of config.
    """
    new = copy.deepcopy(config)
    text = text_config(new)
    n_layers = text.num_hidden_layers
    for name, value in cut_fields(vars(text), n_layers, block).items():
        setattr(text, name, value)
    text.num_hidden_layers = len(block.kept(n_layers))
    return new


def cut_json(raw: dict, config, block: Block) -> dict:
    """A copy of ``raw``, the content of a config.json, for the model without ``block``; ``config`` is the
    same config loaded, so that values which the file leaves to defaults are known and written out."""
    new = copy.deepcopy(raw)
    text = text_config(config)
    fields = new if text is config else new[_name_of(config, text)]
    n_layers = text.num_hidden_layers
    changes = cut_fields(vars(text), n_layers, block)
    own = cut_fields(fields, n_layers, block)  # lists that the file has stay in its own words
    changes |= {name: value for name, value in own.items() if name in fields}
    aliases = getattr(text, "attribute_map", {})
    changes[aliases.get("num_hidden_layers", "num_hidden_layers")] = len(block.kept(n_layers))
    for name, value in changes.items():
        names = [name, *(alias for alias, stored in aliases.items() if stored == name)]
        for key in [key for key in names if key in fields] or [name]:
            fields[key] = value
    return new


def cut_fields(fields: Mapping, n_layers: int, block: Block) -> dict:
    """The entries of a decoder config that change when ``block`` is removed, with their new values."""
    kept = block.kept(n_layers)
    place = {old: new for new, old in enumerate(kept)}
    changes = {}
    for name, value in fields.items():
        if name in INDEX_LISTS:
            if value is not None:
                changes[name] = [place[i] for i in value if i in place]
        elif name in LEADING_COUNTS:
            if value is not None:
                changes[name] = value - max(0, min(value, block.last + 1) - block.first)
        elif _is_per_layer(name, value, n_layers):
            changes[name] = [value[i] for i in kept]
    return changes


def _is_per_layer(name: str, value, n_layers: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == n_layers and not _NOT_PER_LAYER.search(name)


def _name_of(config, part) -> str:
    return next(name for name, value in vars(config).items() if value is part)


def prediction_layers(config) -> int:
    """Number of layers for multi-token prediction that the weights may hold after the decoder's."""
    text = text_config(config)
    return sum(getattr(text, name, None) or 0 for name in ("num_nextn_predict_layers", "num_mtp_layers"))
