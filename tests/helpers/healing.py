"""A model, texts and a recipe that heal in seconds."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from deeper_layers.settings.healing import Healing

VOCABULARY = 64
RECIPE = Healing(
    rank=8, learning_rate=2e-2, warmup=5, steps=40, batch=8, length=32, packing=True, precision="fp32"
)


def counting(n: int, seed: int) -> list[list[int]]:
    """Documents that count up by 1, 2 or 3 (modulo 61): learnable from the two tokens before."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.integers(61) + rng.integers(1, 4) * np.arange(rng.integers(2, 30))) % 61).tolist()
        for _ in range(n)
    ]


def tiny_llama(layers: int = 3, **settings) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = dict(hidden_size=48, intermediate_size=80, num_attention_heads=2, initializer_range=0.1)
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, **(shape | settings))
    return LlamaForCausalLM(config).eval()
