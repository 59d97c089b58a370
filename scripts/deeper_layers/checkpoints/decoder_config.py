"""What removing layers does to a model's configuration. No torch, and transformers is not imported: what a
config that transformers loaded says of its decoder is read once (``Decoder``), and manifests keep it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import UserError
from ..pruning.layer_set import LayerSet
from .model_types import REFUSED

# Lists of layer numbers, and counts of leading layers: renumbered. Every other list with one entry per
# layer (layer_types, no_rope_layers, ...) loses the removed entries.
INDEX_LISTS = {
    "attn_layer_indices",
    "full_attn_idxs",
    "hybrid_layer_ids",
    "local_layer_ids",
    "mlp_only_layers",
    "moe_layers",
    "ple_layer_ids",
}
LEADING_COUNTS = {"first_k_dense_replace", "max_window_layers", "moe_layer_start_index", "num_dense_layers"}
LAYER_COUNTS = {"num_blocks"}  # second names of the number of layers
_NOT_PER_LAYER = re.compile(r"token_id|multipliers|_limit$|section|^architectures$|^languages$")

# Every how many layers something comes: shifting the layers breaks it, unless transformers reads such a
# value only to fill in a list that the cut writes out.
_PERIOD = re.compile(r"period|interval|every|layer_step$|sparse_step$|layers_per|layer_freq$|window_pattern$")
SPELT_OUT = {
    "_sliding_window_pattern": "layer_types",
    "full_attention_interval": "layer_types",
    "global_attn_every_n_layers": "layer_types",
    "prefix_dense_sliding_window_pattern": "layer_types",
    "sliding_window_pattern": "layer_types",
    "interleave_moe_layer_step": "moe_layers",
    "no_rope_layer_interval": "no_rope_layers",
    "decoder_sparse_step": "mlp_only_layers",
}


def text_config(config):
    """The part of ``config`` that describes the decoder: ``config`` itself unless it is composite."""
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"model type {config.model_type!r} has an encoder; only decoder-only models are cut")
    return config.get_text_config(decoder=True)


def layer_count(config) -> int:
    """L, the number of decoder layers."""
    return text_config(config).num_hidden_layers


@dataclass(frozen=True)
class Decoder:
    """What a loaded config says of its decoder: all that a cut on disk needs to know, and JSON can hold.

    ``part`` is the name of the decoder's config within a composite one, else None; ``aliases`` maps other
    names of fields to those they are stored under. ``fields`` are the numbers, lists and None of the config,
    defaults filled in, and ``per_layer_config``; ``width`` is that of the token embedding.
    """

    part: str | None
    model_type: str
    n_layers: int
    vocabulary: int
    width: int
    aliases: Mapping[str, str]
    fields: Mapping

    @classmethod
    def of(cls, config) -> Decoder:
        """Read a config that transformers loaded. Raises UserError for a model with an encoder."""
        text = text_config(config)
        fields = {
            name: value
            for name, value in vars(text).items()
            if (name[0] != "_" or name in SPELT_OUT) and isinstance(value, int | list | tuple | None)
        }
        if spec := vars(text).get("_heterogeneity_spec"):  # where transformers keeps per_layer_config
            fields["per_layer_config"] = spec.per_layer_overrides
        return cls(
            None if text is config else next(name for name, part in vars(config).items() if part is text),
            text.model_type,
            text.num_hidden_layers,
            text.vocab_size,
            getattr(text, "word_embed_proj_dim", text.hidden_size),
            getattr(text, "attribute_map", {}),
            fields,
        )

    @property
    def count(self) -> str:
        """The name of the field that holds the number of layers."""
        return self.aliases.get("num_hidden_layers", "num_hidden_layers")

    @property
    def prediction_layers(self) -> int:
        """Number of layers for multi-token prediction that the weights may hold after the decoder's."""
        return max(self.fields.get(name) or 0 for name in ("num_nextn_predict_layers", "num_mtp_layers"))

    def without(self, block: LayerSet) -> Decoder:
        """The decoder once the layers of ``block`` are removed."""
        left = len(block.kept(self.n_layers))
        changes = cut_fields(self.fields, self.n_layers, block)
        if self.count in self.fields:  # a few types count the entries of a list instead
            changes[self.count] = left
        return replace(self, n_layers=left, fields={**self.fields, **changes})


def check_supported(decoder: Decoder) -> None:
    """Raise UserError, with the reason, if no model of this config can lose layers and stay what it was."""
    fields = decoder.fields
    reason = REFUSED.get(decoder.model_type)
    if fields.get("scale_attn_by_inverse_layer_idx"):
        reason = "scale_attn_by_inverse_layer_idx divides by the number of the layer"
    elif fields.get("hidden_size_per_layer_input"):
        reason = "one tensor holds embeddings for all layers (hidden_size_per_layer_input)"
    elif fields.get("num_kv_shared_layers"):
        reason = "late layers share the cache of earlier ones (num_kv_shared_layers)"
    for name, value in fields.items():
        if _PERIOD.search(name) and type(value) is int and value > 1 and SPELT_OUT.get(name) not in fields:
            reason = reason or f"{name} = {value} places layers by a period, which a cut would shift"
    if reason:
        raise UserError(f"layers of model type {decoder.model_type!r} cannot be removed: {reason}")


def changed_fields(decoder: Decoder, block: LayerSet) -> dict:
    """What changes in a config besides the number of layers: field -> new value. Raises UserError if the
    layers of ``block`` cannot be removed from such a model."""
    check_supported(decoder)
    changes = cut_fields(decoder.fields, decoder.n_layers, block)
    _check_attention(decoder, changes)
    return changes


def cut_config(config, block: LayerSet):
    """A copy of ``config`` for the model without the layers of ``block``.

    Lists and counts that speak of single layers are edited so that each kept layer stays what it was.
    Raises UserError where that cannot be written in this type of config.
    """
    new = copy.deepcopy(config)
    if not block.n:
        return new
    changes = changed_fields(Decoder.of(config), block)
    text = text_config(new)
    left = len(block.kept(text.num_hidden_layers))
    per_layer = changes.pop("per_layer_config", None)
    for name, value in changes.items():
        setattr(text, name, value)
    text.num_hidden_layers = left
    if per_layer is not None:  # transformers checks it against the number of layers
        text.per_layer_config = per_layer
    return new


def cut_json(raw: Mapping, decoder: Decoder, block: LayerSet) -> dict:
    """A copy of ``raw``, the content of a config.json, for the model without ``block``; ``decoder`` is read
    from the same config loaded, so that values which the file leaves to defaults are known and written out.

    Everything else stays as the file has it: other programs read it too. Raises UserError like
    ``changed_fields``.
    """
    new = copy.deepcopy(dict(raw))
    if not block.n:
        return new
    fields = new if decoder.part is None else new[decoder.part]
    changes = changed_fields(decoder, block)
    own = cut_fields(fields, decoder.n_layers, block)  # lists that the file has stay in its own words
    changes |= {name: value for name, value in own.items() if name in fields}
    changes[decoder.count] = len(block.kept(decoder.n_layers))
    for name, value in changes.items():
        names = [name, *(alias for alias, stored in decoder.aliases.items() if stored == name)]
        for key in [key for key in names if key in fields] or [name]:
            fields[key] = value
    return new


def cut_fields(fields: Mapping, n_layers: int, block: LayerSet) -> dict:
    """The entries of a decoder config that change when ``block`` is removed, with their new values."""
    kept = block.kept(n_layers)
    place = {old: new for new, old in enumerate(kept)}
    changes = {}
    for name, value in fields.items():
        if value is None:
            continue
        if name in INDEX_LISTS:
            changes[name] = [place[i] for i in value if i in place]
        elif name in LEADING_COUNTS:
            changes[name] = sum(i < value for i in kept)
        elif name in LAYER_COUNTS:
            changes[name] = len(kept)
        elif name == "moe_layer_end_index" and value >= 0:
            changes[name] = sum(i <= value for i in kept) - 1
        elif name == "block_types":  # RecurrentGemma repeats this pattern
            changes[name] = [value[i % len(value)] for i in kept]
        elif name == "per_layer_config":
            changes[name] = {str(place[int(i)]): v for i, v in value.items() if int(i) in place}
        elif _is_per_layer(name, value, n_layers):
            changes[name] = [value[i] for i in kept]
    if (step := fields.get("decoder_sparse_step") or 1) > 1:
        dense = {i for i in kept if (i + 1) % step} | set(fields.get("mlp_only_layers") or [])
        changes["mlp_only_layers"] = [place[i] for i in sorted(dense) if i in place]
        changes["decoder_sparse_step"] = 1
    return changes


def _check_attention(decoder: Decoder, changes: Mapping) -> None:
    """Raise if a hybrid loses its last layer of real attention: transformers cannot generate without."""
    for name, old in decoder.fields.items():
        if name in ("attn_layer_indices", "full_attn_idxs"):
            lost = old and not changes[name]
        elif name in ("layer_types", "layers_block_type", "block_types") and old is not None:
            lost = any(map(_attends, old)) and not any(map(_attends, changes[name]))
        else:
            continue
        if lost:
            raise UserError(
                f"this block holds every attention layer of the hybrid model type {decoder.model_type!r}, "
                "which cannot generate without; remove fewer layers"
            )


def _attends(kind: str) -> bool:
    return "attention" in kind and "linear" not in kind


def _is_per_layer(name: str, value, n_layers: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == n_layers and not _NOT_PER_LAYER.search(name)
