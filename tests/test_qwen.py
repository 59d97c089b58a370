"""First-generation Qwen converted to Qwen2: against a forward pass and a tokenizer of Qwen-1 written here."""

import json
import math
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import regex
import torch
from safetensors.torch import save_file
from torch.nn.functional import silu

from deeper_layers.checkpoints.qwen import SPECIAL, convert
from deeper_layers.data.tokens import load_tokenizer
from deeper_layers.errors import UserError
from deeper_layers.models.load import load_model
from deeper_layers.models.verify import verify_checkpoint
from helpers.config import ROOT
from helpers.qwen import (
    CONFIG,
    HEADS,
    LAYERS,
    LONGEST,
    TEXTS,
    VOCABULARY,
    WIDTH,
    merged,
    ranks,
    tensors,
    write,
)


def qwen_1(w: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of the first-generation Qwen (modeling_qwen.py), up to ``seq_length`` tokens.

    Rotary embedding: the halves (x1, x2) of a head become (x1 cos - x2 sin, x2 cos + x1 sin), the angle of
    feature i at position t being t / base^(2 i / d). MLP: c_proj(w1(x) * silu(w2(x))).
    """

    def norm(x, weight):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight

    batch, length = ids.shape
    size = WIDTH // HEADS
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)  # [T, d / 2]
    cos, sin = angles.cos(), angles.sin()

    def rotated(x):  # [B, heads, T, d]
        x1, x2 = x[..., : size // 2], x[..., size // 2 :]
        return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1)

    future = torch.full((length, length), -math.inf).triu(1)
    x = w["transformer.wte.weight"][ids]
    for i in range(LAYERS):
        h = {
            k.removeprefix(f"transformer.h.{i}."): v
            for k, v in w.items()
            if k.startswith(f"transformer.h.{i}.")
        }
        fused = norm(x, h["ln_1.weight"]) @ h["attn.c_attn.weight"].T + h["attn.c_attn.bias"]
        q, k, v = (p.view(batch, length, HEADS, size).transpose(1, 2) for p in fused.split(WIDTH, dim=-1))
        scores = rotated(q) @ rotated(k).transpose(-1, -2) / math.sqrt(size) + future
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + mixed @ h["attn.c_proj.weight"].T
        y = norm(x, h["ln_2.weight"])
        x = x + (y @ h["mlp.w1.weight"].T * silu(y @ h["mlp.w2.weight"].T)) @ h["mlp.c_proj.weight"].T
    return norm(x, w["transformer.ln_f.weight"]) @ w["lm_head.weight"].T


def encoded(text: str, vocabulary: dict[bytes, int]) -> list[int]:
    """What tiktoken makes of a text with Qwen-1's pattern (tokenization_qwen.py)."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    ids = []
    special = "|".join(map(regex.escape, SPECIAL))
    for piece in regex.split(f"({special})", unicodedata.normalize("NFC", text)):
        if piece in SPECIAL:
            ids.append(len(vocabulary) + SPECIAL.index(piece))
            continue
        for word in regex.findall(pattern, piece):
            ids += [vocabulary[t] for t in merged([bytes([b]) for b in word.encode()], vocabulary)]
    return ids


@pytest.mark.parametrize("shards", [1, 3])
def test_logits_are_those_of_the_first_generation(tmp_path, shards):
    weights = tensors()
    convert(write(tmp_path / "source", weights, shards=shards), "qwen", tmp_path / "full")
    verify_checkpoint(tmp_path / "full")
    model = load_model(tmp_path / "full")
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.config.max_position_embeddings == LONGEST and not model.config.tie_word_embeddings
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, (2, LONGEST)))
    with torch.inference_mode():
        expected, found = qwen_1(weights, ids), model(ids).logits
    assert expected.std() > 1
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    # The mapping matters: gate and up exchanged give something else.
    swapped = {k.replace("w1", "w0").replace("w2", "w1").replace("w0", "w2"): v for k, v in weights.items()}
    assert (qwen_1(swapped, ids) - found).abs().max() > 0.1


def test_the_tokenizer_gives_the_same_ids(tmp_path):
    convert(write(tmp_path / "source", tensors()), "qwen", tmp_path / "full")
    tokenizer = load_tokenizer(tmp_path / "full")
    vocabulary = ranks()
    r = random.Random(0)
    letters = "".join(TEXTS) + " \n\r\t'0123e\u0301"
    texts = [*TEXTS, *("".join(r.choices(letters, k=r.randint(1, 40))) for _ in range(500))]
    texts.append("<|im_start|>the<|im_end|><|endoftext|> <|extra_204|>")
    for text in texts:
        assert tokenizer(text)["input_ids"] == encoded(text, vocabulary), text
    assert all(len(encoded(t, vocabulary)) < 0.9 * len(t.encode()) for t in TEXTS)  # merges are used
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>" and tokenizer.eos_token_id == 300
    assert tokenizer.bos_token is None and len(tokenizer) == 300 + len(SPECIAL)


def test_the_program_writes_a_checkpoint_of_the_study(tmp_path):
    source = write(tmp_path / "source", tensors())
    record = {"kind": "hub", "id": "Qwen/Qwen-7B", "revision": "abc", "folder": str(source), "bytes": 1}
    (tmp_path / "download.json").write_text(json.dumps(record))
    command = [
        sys.executable,
        str(ROOT / "scripts/convert_qwen.py"),
        "--download",
        str(tmp_path / "download.json"),
    ]
    subprocess.run([*command, "--model", "qwen-7b", "--out", str(tmp_path / "full")], check=True)
    manifest = json.loads((tmp_path / "full/manifest.json").read_text())
    assert manifest["source"] == {"kind": "hub", "id": "Qwen/Qwen-7B", "revision": "abc"}
    assert (manifest["model"], manifest["block"], manifest["n_layers"]) == ("qwen-7b", "full", LAYERS)
    assert manifest["parameters"] == sum(t.numel() for t in tensors().values())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"model_type": "llama"}, "of type 'llama', not of first-generation Qwen"),
        ({"no_bias": False}, "Qwen2 cannot express no_bias = False of this checkpoint, only True"),
        ({"rotary_pct": 0.5}, "cannot express rotary_pct = 0.5"),
        ({"kv_channels": 16}, "cannot express kv_channels = 16 of this checkpoint, only 8"),
    ],
)
def test_what_qwen2_cannot_express_is_refused(tmp_path, change, said):
    write(tmp_path / "source", tensors(), CONFIG | change)
    with pytest.raises(UserError) as error:
        convert(tmp_path / "source", "qwen", tmp_path / "full")
    assert said in str(error.value) and not (tmp_path / "full").exists()


def test_unknown_tensors_and_a_missing_vocabulary_are_refused(tmp_path):
    source = write(tmp_path / "source", tensors() | {"transformer.h.0.attn.extra": torch.zeros(1)})
    with pytest.raises(UserError, match="first-generation Qwen has no tensor 'transformer.h.0.attn.extra'"):
        convert(source, "qwen", tmp_path / "full")
    (source / "qwen.tiktoken").write_text("YQ== 0\nnot a line\n")
    save_file(tensors(), source / "model.safetensors")
    with pytest.raises(UserError, match="qwen.tiktoken, line 2: not a base64 token and its rank"):
        convert(source, "qwen", tmp_path / "full")
    (source / "qwen.tiktoken").unlink()
    with pytest.raises(UserError, match="source lacks qwen.tiktoken"):
        convert(source, "qwen", tmp_path / "full")
