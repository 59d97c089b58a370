"""What removing layers does to a model's configuration. No torch, and transformers is not imported: what a
config that transformers loaded says of its decoder is read once (``Decoder``), and manifests keep it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..pruning.layer_set import LayerSet
from .model_types import FIRST_ATTENDS, REFUSED

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Places = Mapping[int, int]  # old number of each layer that stays -> its new number, ascending


def _indices(numbers: Sequence[int], places: Places) -> list[int]:
    """Of a list of layer numbers."""
    return [places[i] for i in numbers if i in places]


def _leading(count: int, places: Places) -> int:
    """Of a number of leading layers, or the number of the first layer after them."""
    return sum(i < count for i in places)


def _last(index: int, places: Places) -> int | None:
    """Of the number of the last layer of a kind; below 0 it stands for the last layer of all."""
    return sum(i <= index for i in places) - 1 if index >= 0 else None


def _count(count: int, places: Places) -> int:
    """Of a second name of the number of layers."""
    return len(places)


def _repeated(pattern: Sequence, places: Places) -> list:
    """Of a pattern that is repeated over all layers: written out."""
    return [pattern[i % len(pattern)] for i in places]


def _by_number(values: Mapping, places: Places) -> dict:
    """Of a mapping from layer numbers."""
    return {str(places[int(i)]): value for i, value in values.items() if int(i) in places}


def _entries(values: Sequence, places: Places) -> list:
    """Of a list with an entry for each layer."""
    return [values[i] for i in places]


# How an entry of a config that speaks of layers by number becomes that of the cut model; None: it stays.
# Lists with one entry per layer (layer_types, no_rope_layers, ...) need no line here.
EDITORS: dict[str, Callable[[Any, Places], Any]] = {
    "attn_layer_indices": _indices,
    "block_types": _repeated,  # RecurrentGemma
    "first_k_dense_replace": _leading,
    "full_attn_idxs": _indices,
    "hybrid_layer_ids": _indices,
    "local_layer_ids": _indices,
    "max_window_layers": _leading,
    "mlp_only_layers": _indices,
    "moe_layer_end_index": _last,
    "moe_layer_start_index": _leading,
    "moe_layers": _indices,
    "num_blocks": _count,
    "num_dense_layers": _leading,
    "per_layer_config": _by_number,
    "ple_layer_ids": _indices,
}
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


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of ``config`` that describes the decoder: ``config`` itself unless it is composite."""
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"model type {config.model_type!r} has an encoder; only decoder-only models are cut")
    return config.get_text_config(decoder=True)


def layer_count(config: PretrainedConfig) -> int:
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
    def of(cls, config: PretrainedConfig) -> Decoder:
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


def cut_config(config: PretrainedConfig, block: LayerSet) -> PretrainedConfig:
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
    places = {old: new for new, old in enumerate(block.kept(n_layers))}
    changes = {}
    for name, value in fields.items():
        edit = EDITORS.get(name) or (_entries if _is_per_layer(name, value, n_layers) else None)
        if edit and value is not None and (new := edit(value, places)) is not None:
            changes[name] = new
    if (step := fields.get("decoder_sparse_step") or 1) > 1:
        dense = {i for i in places if (i + 1) % step} | set(fields.get("mlp_only_layers") or [])
        changes["mlp_only_layers"] = _indices(sorted(dense), places)
        changes["decoder_sparse_step"] = 1
    return changes


def _check_attention(decoder: Decoder, changes: Mapping) -> None:
    """Raise if a hybrid loses its last layer of real attention, or a first one that has to be such a layer:
    transformers cannot generate without."""
    for name, old in decoder.fields.items():
        if name in ("attn_layer_indices", "full_attn_idxs"):
            lost = old and not changes[name]
        elif name in ("layer_types", "layers_block_type", "block_types") and old is not None:
            lost = any(map(_attends, old)) and not any(map(_attends, changes[name]))
            _check_first(decoder, old, changes[name])
        else:
            continue
        if lost:
            raise UserError(
                f"this block holds every attention layer of the hybrid model type {decoder.model_type!r}, "
                "which cannot generate without; remove fewer layers"
            )


def _check_first(decoder: Decoder, old: Sequence[str], new: Sequence[str]) -> None:
    if decoder.model_type in FIRST_ATTENDS and _attends(old[0]) and not _attends(new[0]):
        raise UserError(
            f"after this block the first layer of a {decoder.model_type!r} model would be one of linear "
            "attention, with which transformers generates wrongly; keep the first layer"
        )


def _attends(kind: str) -> bool:
    return "attention" in kind and "linear" not in kind


def _is_per_layer(name: str, value: object, n_layers: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == n_layers and not _NOT_PER_LAYER.search(name)
