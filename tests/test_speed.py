"""Memory and speed of cuts: sizes against the models themselves, times and bytes against known amounts."""

import math
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.errors import UserError
from deeper_layers.evaluation.speed import Clock, footprint, generate, measure, most_allocated
from deeper_layers.models.layers import removed
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.runtime.files import read_json
from deeper_layers.settings.speed import SpeedSettings
from helpers.config import ROOT
from helpers.tiny import logits, tiny_model

BLOCKS = [FULL, LayerSet.contiguous(1, 1), LayerSet.contiguous(1, 4)]
SETTINGS = SpeedSettings(batch=2, prompt=8, new=5, repeats=3)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The adopted checkpoint of a tiny Llama."""
    folder = tmp_path_factory.mktemp("speed")
    tiny_model("llama").save_pretrained(folder / "source")
    adopt_checkpoint(folder / "source", "tiny", folder / "full")
    return folder / "full"


def test_what_is_measured_of_each_cut(full):
    model = load_model(full)
    before = logits(model)
    rows = measure(model, read_json(full / "manifest.json"), BLOCKS, SETTINGS, label="speed")
    assert rows["block"].tolist() == ["full", "drop_1-1", "drop_1-4"]
    for row, block in zip(rows.itertuples(), BLOCKS, strict=True):
        with removed(model, block):
            assert row.parameters == sum(p.numel() for p in model.parameters())
            assert row.bytes == 4 * row.parameters and row.layers == model.config.num_hidden_layers
            cache = 2 * row.layers * SETTINGS.batch * (SETTINGS.prompt + SETTINGS.new - 1)
            cache *= 4 * model.config.num_key_value_heads * model.config.head_dim
            assert row.memory_bytes > row.bytes + cache
        assert 0 < row.prefill_low <= row.prefill <= row.prefill_high
        assert 0 < row.decode_low <= row.decode <= row.decode_high
    assert rows["memory_bytes"].is_monotonic_decreasing
    assert torch.equal(logits(model), before)  # the cuts are undone


def test_the_clock_tells_the_first_token_from_the_others(full, monkeypatch):
    model = load_model(full)
    forward, tokens = model.forward, []

    def slow(*args, **named):
        tokens.append(named["input_ids"].shape[1])
        time.sleep(0.3 if len(tokens) == 1 else 0.05)
        return forward(*args, **named)

    monkeypatch.setattr(model, "forward", slow)
    first, others = generate(model, SETTINGS)
    assert tokens == [8, 1, 1, 1, 1]  # the prompt once, then with the cache
    assert first >= 0.3 and others >= 4 * 0.05
    clock = Clock(torch.device("cpu"))
    assert not clock(torch.zeros(3, 1), None).any() and len(clock.times) == 2


def test_memory_is_the_most_at_one_time():
    def action():
        first = torch.zeros(1 << 20)
        del first
        second = torch.zeros(1 << 20)
        third = second + 1
        return third.sum()

    assert most_allocated(action) == pytest.approx(2 * 4 * (1 << 20), rel=0.01)


def test_the_program_writes_a_table_and_how_it_was_made(full, tmp_path):
    command = [
        sys.executable,
        ROOT / "scripts/measure_speed.py",
        "--checkpoint",
        full,
        "--blocks",
        "full",
        "drop_1-2",
    ]
    command += ["--prompt", "8", "--new", "3", "--repeats", "1", "--precision", "fp32", "--gpus", "0"]
    done = subprocess.run([*command, "--out", tmp_path / "speed.csv"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line.split()[0] for line in done.stderr.splitlines()[-3:]]
    assert said == ["cut", "full", "drop_1-2"]  # the numbers, for the person who asked
    rows = pd.read_csv(tmp_path / "speed.csv")
    assert rows["n"].tolist() == [0, 2] and (rows[["prefill", "decode"]] > 0).all(axis=None)
    made = read_json(tmp_path / "speed.json")
    assert made["prompt"] == 8 and made["precision"] == "fp32" and made["versions"]["torch"]


def test_the_footprint_in_nf4_has_the_scales_too(full):
    model = load_model(full, "nf4")
    quantised = [p for p in model.parameters() if hasattr(p, "quant_state")]
    # 8 bits for 64 weights, 32 bits for 256 of these; the codes and the mean are the same for all, or tiny.
    scales = [math.prod(p.quant_state.shape) // 64 for p in quantised]
    expected = sum(n + 4 * math.ceil(n / 256) for n in scales)
    beyond = footprint(model) - model.get_memory_footprint()
    assert expected <= beyond <= expected + len(quantised) * (4 + 4 * 16 + 4 * 256)
    with removed(model, LayerSet.contiguous(1, 4)):
        assert footprint(model) - model.get_memory_footprint() < beyond


def test_generation_that_does_not_fit_is_one_line(full, monkeypatch):
    model, manifest = load_model(full), read_json(full / "manifest.json")

    def full_card(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(model, "forward", full_card)
    with pytest.raises(UserError, match="2 x 13 tokens do not fit into memory beside the model"):
        measure(model, manifest, [FULL], SETTINGS, label="speed")
