"""A random checkpoint of first-generation Qwen, as its authors publish theirs."""

from __future__ import annotations

import base64
import json
import math

import torch
from safetensors.torch import save_file

LAYERS, WIDTH, HEADS, FFN, VOCABULARY, LONGEST = 3, 32, 4, 48, 600, 64
CONFIG = {  # the keys of Qwen-7B's own config.json
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"},
    "model_type": "qwen",
    "attn_dropout_prob": 0.0,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * FFN,
    "initializer_range": 0.02,
    "kv_channels": WIDTH // HEADS,
    "layer_norm_epsilon": 1e-06,
    "max_position_embeddings": 128,
    "no_bias": True,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": LONGEST,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "vocab_size": VOCABULARY,
}


def tensors(layers: int = LAYERS) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"transformer.wte.weight": (VOCABULARY, WIDTH), "lm_head.weight": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        inner = {
            "attn.c_attn.weight": (3 * WIDTH, WIDTH),
            "attn.c_attn.bias": (3 * WIDTH,),
            "attn.c_proj.weight": (WIDTH, WIDTH),
            "mlp.w1.weight": (FFN, WIDTH),
            "mlp.w2.weight": (FFN, WIDTH),
            "mlp.c_proj.weight": (WIDTH, FFN),
        }
        shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in inner.items()}
    found = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    norms = ["transformer.ln_f", *(f"transformer.h.{i}.ln_{j}" for i in range(layers) for j in (1, 2))]
    return found | {f"{name}.weight": 1 + 0.3 * torch.randn(WIDTH) for name in norms}


TEXTS = [
    "Ada buys 23 apples.",
    "it's I'LL DON'T  x\n\n \t y",
    "na\u00efve caf\u00e9 na\u00efve caf\u00e9",
    "\u4f60\u597d\u4e16\u754c\u4f60\u597d",
    "the the then there",
]


def ranks() -> dict[bytes, int]:
    """A byte-level vocabulary: all bytes, then the most frequent pair again and again, as BPE is trained."""
    found = {bytes([i]): i for i in range(256)}
    words = [[bytes([b]) for b in text.encode()] for text in TEXTS]
    while len(found) < 300:
        pairs = [pair for word in words for pair in zip(word, word[1:], strict=False)]
        best = max(sorted(set(pairs)), key=pairs.count)
        found[best[0] + best[1]] = len(found)
        words = [merged(word, {best: 0}) for word in words]
    return found


def merged(parts: list[bytes], order: dict) -> list[bytes]:
    """Join the neighbours that come first in ``order`` (of pairs, or of joints) until none is in it."""
    while True:
        pairs = list(zip(parts, parts[1:], strict=False))
        rank = [order.get(pair, order.get(pair[0] + pair[1], math.inf)) for pair in pairs]
        if not rank or min(rank) == math.inf:
            return parts
        i = rank.index(min(rank))
        parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]


def write(folder, weights, config=CONFIG, shards=1):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(weights)
    files = [
        f"model-{i + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        for i in range(shards)
    ]
    where = {}
    for i, file in enumerate(files):
        part = {name: weights[name].contiguous() for name in names[i::shards]}
        save_file(part, folder / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": where})
        )
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks().items()]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n")
    return folder
