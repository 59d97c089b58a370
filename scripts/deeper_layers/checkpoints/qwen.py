"""First-generation Qwen (QWenLMHeadModel, code of its own on the hub) as a plain Qwen2 checkpoint.

The two compute the same: RMSNorm, rotary embeddings on halves, SwiGLU, biases on q, k and v alone. Qwen-1
fuses q, k and v into ``c_attn``, calls the gate ``w2`` and the up projection ``w1``, and lengthens its
rotary base and scales its queries beyond ``seq_length`` tokens, which becomes the longest length here.
Weights are moved as byte ranges, never loaded; q, k and v are rows of c_attn one after the other.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..pruning.layer_set import FULL
from ..runtime.files import write_json
from . import safetensors_io
from .folder import INDEX, Checkpoint
from .manifest import write_manifest
from .safetensors_io import Tensor
from .writing import writing

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

OUTSIDE = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
INSIDE = {
    "ln_1.weight": "input_layernorm.weight",
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "ln_2.weight": "post_attention_layernorm.weight",
    "mlp.w2.weight": "mlp.gate_proj.weight",
    "mlp.w1.weight": "mlp.up_proj.weight",
    "mlp.c_proj.weight": "mlp.down_proj.weight",
}
LAYER = re.compile(r"transformer\.h\.(\d+)\.(.+)")
VOCABULARY = "qwen.tiktoken"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]


def convert(source: str | Path, model: str, target: str | Path, origin: Mapping | None = None) -> None:
    """Write the Qwen-1 checkpoint in ``source`` into ``target`` as Qwen2: weights, config, tokenizer, and a
    manifest last, for the model called ``model``; ``origin`` is what that says of the source.

    Raises UserError for a checkpoint that is not Qwen-1 or has a setting that Qwen2 has not.
    """
    base, target = Checkpoint.read(source), Path(target)
    config = qwen2_config(base.raw_config)
    shards = {
        file: {new: part for name, t in header.tensors.items() for new, part in renamed(name, t).items()}
        for file, header in base.shards.items()
    }
    tokenizer = qwen2_tokenizer(base.folder / VOCABULARY)
    with writing(base.folder, target):
        for file, tensors in shards.items():
            safetensors_io.write(target / file, tensors, {"format": "pt"})
        if base.sharded:
            total = sum(t.bytes for tensors in shards.values() for t in tensors.values())
            names = {name: file for file, tensors in shards.items() for name in tensors}
            write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": names})
        write_json(target / "config.json", config)
        tokenizer.save_pretrained(target)
        for path in base.folder.glob("LICENSE*"):
            safetensors_io.copy_file(path, target / path.name)
        origin = origin or {"kind": "folder", "id": str(source), "revision": None}
        write_manifest(target, model, FULL, origin, None)


def qwen2_config(raw: Mapping) -> dict:
    """The config.json of Qwen2 for one of Qwen-1. Its ``intermediate_size`` counts gate and up together."""
    if raw.get("model_type") != "qwen":
        raise UserError(
            f"this is a checkpoint of type {raw.get('model_type')!r}, not of first-generation Qwen"
        )
    needed = {
        "no_bias": True,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "kv_channels": raw["hidden_size"] // raw["num_attention_heads"],
    }
    for key, value in needed.items():
        if raw.get(key, value) != value:
            raise UserError(f"Qwen2 cannot express {key} = {raw[key]!r} of this checkpoint, only {value!r}")
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": raw["vocab_size"],
        "hidden_size": raw["hidden_size"],
        "intermediate_size": raw["intermediate_size"] // 2,
        "num_hidden_layers": raw["num_hidden_layers"],
        "num_attention_heads": raw["num_attention_heads"],
        "num_key_value_heads": raw["num_attention_heads"],
        "hidden_act": "silu",
        "max_position_embeddings": raw["seq_length"],
        "rms_norm_eps": raw["layer_norm_epsilon"],
        "rope_theta": raw.get("rotary_emb_base", 10000),
        "initializer_range": raw.get("initializer_range", 0.02),
        "tie_word_embeddings": raw.get("tie_word_embeddings", False),
        "use_sliding_window": False,
    }


def renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The tensors of Qwen2, by name, that one of Qwen-1 becomes."""
    if name in OUTSIDE:
        return {OUTSIDE[name]: tensor}
    layer = LAYER.fullmatch(name)
    if layer:
        prefix, inner = f"model.layers.{layer[1]}", layer[2]
        if inner in INSIDE:
            return {f"{prefix}.{INSIDE[inner]}": tensor}
        if inner in ("attn.c_attn.weight", "attn.c_attn.bias"):
            kind = inner.rpartition(".")[2]
            parts = zip("qkv", thirds(tensor), strict=True)
            return {f"{prefix}.self_attn.{letter}_proj.{kind}": part for letter, part in parts}
    raise UserError(f"{tensor.path}: a first-generation Qwen has no tensor {name!r}")


def thirds(tensor: Tensor) -> list[Tensor]:
    """Rows 0..H, H..2H and 2H..3H of a tensor of 3H rows, as byte ranges."""
    rows, size = tensor.shape[0] // 3, tensor.bytes // 3
    return [
        replace(
            tensor,
            shape=(rows, *tensor.shape[1:]),
            start=tensor.start + i * size,
            end=tensor.start + (i + 1) * size,
        )
        for i in range(3)
    ]


def qwen2_tokenizer(path: str | Path) -> Qwen2Tokenizer:
    """The tokenizer of a ``qwen.tiktoken`` (a base64 token and its rank a line) as a Qwen2Tokenizer.

    Both split and normalise alike, and end a text with <|endoftext|>. tiktoken joins any neighbours whose
    joint is a token, the lowest rank first: so every way to split a token in two is a merge, in that order.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    ranks = _ranks(Path(path))

    def spelled(token: bytes) -> str:
        return "".join(map(letters.__getitem__, token))

    merges = []
    for token in ranks:
        splits = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [(left, right) for left, right in splits if left in ranks and right in ranks]
        known.sort(key=lambda split: (ranks[split[0]], ranks[split[1]]))
        merges += [(spelled(left), spelled(right)) for left, right in known]
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    vocabulary |= {token: len(ranks) + i for i, token in enumerate(SPECIAL)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True, normalized=False) for t in SPECIAL]}
    )
    return tokenizer


def _ranks(path: Path) -> dict[bytes, int]:
    """The ranks of a .tiktoken file, in their order."""
    if not path.is_file():
        raise UserError(f"{path.parent} lacks {path.name}, the vocabulary of first-generation Qwen")
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise UserError(f"{path}, line {number}: not a base64 token and its rank") from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise UserError(f"{path}: the ranks are not 0..{len(ranks) - 1}, each once")
    return dict(sorted(ranks.items(), key=lambda item: item[1]))
