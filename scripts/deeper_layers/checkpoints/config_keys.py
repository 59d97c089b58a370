"""What a config.json calls the facts of a model: model types have different names for the same.

On the plain JSON, without torch or transformers, which resolve these names themselves (``attribute_map``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

N_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH = ("hidden_size", "n_embd", "d_model")
FFN_WIDTH = ("intermediate_size", "n_inner", "ffn_dim")
ATTENTION_HEADS = ("num_attention_heads", "n_head", "n_heads")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
ACTIVE_EXPERTS = ("num_experts_per_tok", "experts_per_token")
POSITIONS = ("n_positions", "max_position_embeddings", "max_seq_len")


def decoder_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the decoder: all of it, unless it is composite."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config


def value_of(config: Mapping[str, Any], names: tuple[str, ...], default: Any = None) -> Any:
    """The first value under one of ``names`` that is neither missing, null nor 0, else ``default``."""
    return next((config[name] for name in names if config.get(name)), default)


def n_layers(config: Mapping[str, Any]) -> int | None:
    """L, the number of decoder layers; None if a config.json does not say it."""
    count: int | None = value_of(decoder_part(config), N_LAYERS)
    return count
