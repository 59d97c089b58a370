"""Tiny random models of many architectures: six layers, width 32, the true classes of transformers.

``ARCHITECTURES`` is the table of the architecture suite: model type -> what differs from ``SMALL``.
"""

from __future__ import annotations

import dataclasses

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deeper_layers.errors import UserError
from deeper_layers.models.auto import model_class
from deeper_layers.models.layers import decoder_layers, ffn_modules
from deeper_layers.pruning.layer_set import LayerSet

LAYERS = 6
VOCABULARY = 64
# Set where a config has the field; every architecture names some of these.
SMALL = {
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers"], LAYERS),
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "hidden_dim"], 32),
    **dict.fromkeys(["intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"], 48),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads"], 4),
    **dict.fromkeys(["max_position_embeddings", "n_positions"], 64),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size"], 16),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "top_k", "n_group", "moe_k"], 2),
    **dict.fromkeys(["topk_group", "n_shared_experts"], 1),
    **dict.fromkeys(["head_dim", "rotary_dim", "query_pre_attn_scalar"], 8),
    **dict.fromkeys(["qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"], 8),
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank", "qk_head_dim"], 16),
    **dict.fromkeys(["sliding_window", "attention_window_size", "window_size"], 8),
    **dict.fromkeys(["state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head", "time_step_rank"], 8),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim"], 8),
    **{"mamba_n_groups": 1, "mamba_chunk_size": 16, "conv_kernel": 4},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"vocab_size": VOCABULARY, "num_key_value_heads": 2},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None},
}

_LATENT = {"num_key_value_heads": 4}  # multi-head latent attention has no grouped heads
_HYBRID = {"layer_types": ["linear_attention", "full_attention"] * 3}
_CONVOLUTIONS = {"layer_types": ["conv", "full_attention"] * 3}
_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}

_MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
_CLIP = {"model_type": "clip_vision_model", "intermediate_size": 48} | _VISION

ARCHITECTURES: dict[str, dict] = {
    "afmoe": {},
    "apertus": {},
    "arcee": {},
    "aria_text": {},
    "bailing_hybrid": _LATENT | {"layer_types": ["linear_attention", "full_attention"] * 3},
    "bamba": {"attn_layer_indices": [1, 4], "mamba_expand": 2},
    "biogpt": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {},
    "cohere": {},
    "cohere2": {},
    "cohere2_moe": {},
    "cwm": {},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "deepseek_v2": _LATENT | {"first_k_dense_replace": 3},
    "deepseek_v3": _LATENT | {"first_k_dense_replace": 3},
    "deepseek_v32": _LATENT | {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 32},
    "doge": {},
    "dots1": {},
    "ernie4_5": {},
    "ernie4_5_moe": {"moe_layer_start_index": 2, "moe_layer_end_index": 4},
    "exaone4": {},
    "exaone_moe": {},
    "falcon": {},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_expand": 2},
    "falcon_mamba": {},
    "flex_olmo": {},
    "gemma": {},
    "gemma2": {},
    "gemma3": {
        "text_config": {"model_type": "gemma3_text", "sliding_window_pattern": 3},
        "vision_config": _VISION | {"intermediate_size": 48},
        "mm_tokens_per_image": 4,
    },
    "gemma3_text": {"sliding_window_pattern": 3},
    "gemma4_text": {
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 64,
        "global_head_dim": 16,
    },
    "glm": {},
    "glm4": {},
    "glm4_moe": {},
    "glm4_moe_lite": _LATENT,
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "gpt_neox": {},
    "gpt_oss": {},
    "gptj": {},
    "granite": {},
    "granitemoe": {},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 3, "mamba_expand": 2},
    "granitemoeshared": {},
    "helium": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {},
    "hy_v3": {},
    "internlm3": {},
    "jais2": {},
    "jetmoe": {},
    "lfm2": _CONVOLUTIONS,
    "lfm2_moe": _CONVOLUTIONS | {"num_dense_layers": 2},
    "llama": {},
    "llava": {
        "text_config": {"model_type": "llama"},
        "vision_config": _CLIP,
        "image_token_index": VOCABULARY - 1,
    },
    "llama4": {
        "text_config": {"model_type": "llama4_text"},
        "vision_config": _VISION
        | {"intermediate_size": 128, "vision_output_dim": 32}
        | {"projector_input_dim": 32, "projector_output_dim": 32},
    },
    "llama4_text": {},
    "mamba": {},
    "mamba2": {"num_heads": 8, "n_groups": 1, "expand": 2, "chunk_size": 16},
    "minimax": {},
    "minimax_m2": {},
    "ministral": {},
    "ministral3": {},
    "mistral": {},
    "mistral3": {
        "text_config": {"model_type": "mistral", "sliding_window": None},
        "vision_config": {"model_type": "pixtral"} | _VISION | {"intermediate_size": 48, "head_dim": 8},
        "image_token_index": VOCABULARY - 1,
    },
    "mixtral": {},
    "modernbert-decoder": {},
    "moshi": {},
    "mpt": {},
    "nanochat": {},
    "nemotron": {},
    "nemotron_h": {
        "layers_block_type": ["mamba", "moe", "attention", "mamba", "attention", "moe"],
        "moe_shared_expert_intermediate_size": 16,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "ssm_state_size": 8,
        "chunk_size": 16,
    },
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmo_hybrid": _HYBRID,
    "olmoe": {},
    "openai-gpt": {},
    "opt": {},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phimoe": {},
    "qwen2_5_vl": {
        "text_config": {"model_type": "qwen2_5_vl_text", "rope_parameters": _MROPE},
        "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4}
        | {"out_hidden_size": 32, "fullatt_block_indexes": [1]},
    },
    "qwen2": {"use_sliding_window": True, "max_window_layers": 3},
    "qwen2_moe": {"mlp_only_layers": [1, 4]},
    "qwen3": {},
    "qwen3_5": {
        "text_config": {"model_type": "qwen3_5_text"} | _HYBRID,
        "vision_config": {"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 4}
        | {"out_hidden_size": 32, "num_position_embeddings": 16},
    },
    "qwen3_moe": {"decoder_sparse_step": 2},
    "qwen3_next": _HYBRID,
    "recurrent_gemma": {},
    "seed_oss": {},
    "smollm3": {},
    "solar_open": {},
    "stablelm": {},
    "starcoder2": {},
    "vaultgemma": {},
    "xglm": {},
}

REFUSED: dict[str, dict] = {
    "beam": {},
    "diffllama": {},
    "gemma3n_text": {},
    "gemma4_text": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "ernie4_5_moe": {"moe_layer_interval": 2},
    "hrm_text": {},
    "jamba": {},
    "longcat_flash": {},
    "minicpm3": _LATENT,
    "rwkv": {},
    "xlstm": {},
    "zamba": {},
    "zamba2": {"num_hidden_layers": 54},
    "zaya": {"num_experts_per_tok": 1},
}  # cases that must be refused: model type -> what differs from SMALL

# This generates other tokens with a cache than without also when nothing is removed.
CACHE_DIFFERS = {"moshi"}
# Its first layer lacks a norm that the others have, so a cut that takes it is refused.
FIRST_STAYS = {"modernbert-decoder"}


def known(model_type: str) -> bool:
    """Whether this transformers has the model type."""
    return model_type in CONFIG_MAPPING


def tiny_config(model_type: str, **differing) -> PretrainedConfig:
    """A config of SMALL values where the type has such fields; ``differing`` wins."""
    if "text_config" in differing:
        text = dict(differing["text_config"])
        differing = differing | {"text_config": tiny_config(text.pop("model_type"), **text).to_dict()}
    fields = {field.name for field in dataclasses.fields(CONFIG_MAPPING[model_type])}
    small = {name: value for name, value in SMALL.items() if name in fields}
    return AutoConfig.for_model(model_type, **small | differing)


def tiny_model(model_type: str, seed: int = 0, **differing) -> PreTrainedModel:
    """A random model in eval mode, fp32; weights large enough that each layer changes the logits much."""
    torch.manual_seed(seed)
    config = tiny_config(model_type, **differing)
    model = model_class(config).from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.1)
    model.tie_weights()
    return model


IDS = torch.randint(2, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))


def settled(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its weights in fresh memory: the last digit of a CPU's matrix product depends on how
    its operands are aligned, and weights mapped from a file are aligned by chance."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """Logits of IDS, float [2, 12, VOCABULARY]."""
    return model(IDS, use_cache=False).logits


def identity_logits(model: PreTrainedModel, block: LayerSet) -> torch.Tensor:
    """The oracle of a cut: all layers run, and those of ``block`` give back what came in."""

    def give_back(module, args, kwargs, output):
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    gone = [decoder_layers(model)[i] for i in block.removed]
    hooks = [layer.register_forward_hook(give_back, with_kwargs=True) for layer in gone]
    out = logits(model)
    for hook in hooks:
        hook.remove()
    return out


def lora_targets(model) -> list[str]:
    """LoRA targets found, empty where the model has no feed-forward network of linear modules."""
    try:
        return ffn_modules(model)
    except UserError as error:
        assert "name the LoRA targets yourself" in str(error)
        return []
