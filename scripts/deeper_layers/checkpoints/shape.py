"""The shape of a model as its config.json gives it: how many parameters there are, and where.

For estimates, not for results: biases, norms and anything unusual are left out. No torch, no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import config_keys
from .config_keys import decoder_part, value_of
from .model_types import TIED, UNGATED

BYTES = {"fp32": 4, "bf16": 2}  # per parameter
NF4_BYTES = 0.52  # per parameter in 4 bits, with its scales, which are in 8 bits themselves


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that make its parameters.

    Attributes:
        layers: L.
        width: features of a hidden state.
        ffn_width: features inside of a feed-forward network (of one expert's).
        attention_params: parameters of one layer's attention.
        ffn_matrices: matrices ``width`` x ``ffn_width`` of a feed-forward network.
        experts: feed-forward networks of a layer: 1 if it has no experts.
        active_experts: those that one token runs through.
        vocabulary: rows of the embedding and of the head.
        tied: whether the head is the embedding.
    """

    layers: int
    width: int
    ffn_width: float
    attention_params: float
    ffn_matrices: int
    experts: int
    active_experts: int
    vocabulary: int
    tied: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """The shape that the content of a config.json describes."""
        model_type, tied = config.get("model_type"), config.get("tie_word_embeddings")
        config = decoder_part(config)
        width = value_of(config, config_keys.WIDTH, 0)
        heads = value_of(config, config_keys.ATTENTION_HEADS, 1)
        kv_heads = value_of(config, ("num_key_value_heads",), heads)
        head_width = value_of(config, ("head_dim",), width / heads)
        ffn_width = value_of(config, config_keys.FFN_WIDTH, 4 * width)
        experts = value_of(config, config_keys.EXPERTS, 0)
        if experts:
            ffn_width = value_of(config, ("moe_intermediate_size",), ffn_width)
        elif model_type == "qwen":  # the first generation states twice the width of what it has
            ffn_width /= 2
        return cls(
            layers=value_of(config, config_keys.N_LAYERS, 0),
            width=width,
            ffn_width=ffn_width,
            attention_params=2 * width * (heads + kv_heads) * head_width,
            ffn_matrices=2 if model_type in UNGATED else 3,
            experts=experts or 1,
            active_experts=value_of(config, config_keys.ACTIVE_EXPERTS, 1) if experts else 1,
            vocabulary=value_of(config, ("vocab_size",), 0),
            tied=model_type in TIED if tied is None else tied,
        )

    @property
    def layer_params(self) -> float:
        """Parameters of all layers."""
        ffn_params = self.experts * self.ffn_matrices * self.width * self.ffn_width
        return self.layers * (self.attention_params + ffn_params)

    @property
    def embedding_params(self) -> float:
        """Parameters of embedding and head."""
        return self.width * self.vocabulary * (1 if self.tied else 2)

    @property
    def params(self) -> float:
        return self.layer_params + self.embedding_params

    @property
    def active_params(self) -> float:
        """Parameters that one token is multiplied with."""
        ffn_params = self.active_experts * self.ffn_matrices * self.width * self.ffn_width
        return self.layers * (self.attention_params + ffn_params) + self.width * self.vocabulary

    def without(self, n: int) -> Shape:
        """The same with ``n`` layers fewer."""
        return replace(self, layers=self.layers - n)

    def storage(self, precision: str) -> list[tuple[float, float]]:
        """(parameters, bytes of each): in NF4 embedding, head and fused experts stay in 16 bits."""
        if precision != "nf4":
            return [(self.params, BYTES[precision])]
        in_four_bits = self.layer_params if self.experts == 1 else self.layers * self.attention_params
        return [(in_four_bits, NF4_BYTES), (self.params - in_four_bits, 2)]

    def training_bytes(self, gradient_checkpointing: bool) -> float:
        """Bytes for a token in training, the head's logits aside: what all layers keep for their own (34
        bytes for each feature of a token: Korthikanti et al., arXiv 2205.05198) or, with gradient
        checkpointing, the inputs of all and what one layer keeps."""
        if gradient_checkpointing:
            return 2 * self.layers * self.width + 34 * self.width
        return 34 * self.layers * self.width


def bytes_per_param(config: Mapping[str, Any]) -> int:
    """Bytes of each parameter in the files of a checkpoint, from its config.json."""
    return 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
