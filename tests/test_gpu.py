"""What only a GPU can show: it is used, and gives the CPU's numbers. ``make gpu`` runs these, or fails."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.data.tokens import write_tokens
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.speed import measure
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.training import heal
from deeper_layers.importance.angular import angular_distances
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.load import device, load_model
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.runtime import gpus as devices
from deeper_layers.runtime.files import read_json
from deeper_layers.runtime.provenance import provenance
from deeper_layers.self_check import findings
from deeper_layers.settings.healing import Healing
from deeper_layers.settings.speed import SpeedSettings
from helpers.tiny import tiny_model

pytestmark = pytest.mark.gpu
VOCABULARY, BLOCKS = 64, [FULL, LayerSet.contiguous(1, 1), LayerSet.contiguous(1, 4)]


@pytest.fixture(scope="module", autouse=True)
def card():
    """The card that these tests hold, like a job with --gpus 1: an error without one."""
    devices.use("1")
    assert device().type == "cuda"
    return devices.claimed()


@pytest.fixture(scope="module")
def full(card, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    tiny_model("llama").save_pretrained(folder / "source")
    adopt_checkpoint(folder / "source", "tiny", folder / "full")
    rng = np.random.default_rng(0)
    write_tokens(folder / "text", [rng.integers(3, 7, rng.integers(4, 40)) for _ in range(300)])
    return folder / "full"


def documents() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(VOCABULARY, size=rng.integers(2, 50)) for _ in range(40)]


def test_a_model_is_on_the_card_and_its_json_says_so(full):
    model = load_model(full, "bf16")
    assert model.device.type == "cuda" and {p.device.type for p in model.parameters()} == {"cuda"}
    facts = provenance()
    assert facts["device"] == torch.cuda.get_device_name() and facts["peak_cuda_bytes"] > 0
    assert facts["cuda"] == torch.version.cuda and facts["driver"] and facts["alloc_retries"] >= 0
    assert facts["attention"] == "sdpa"


def test_nf4_tree_head_and_resume_hold(card, tmp_path):
    found = list(findings(tmp_path, ["fp32", "bf16", "nf4"]))
    assert len(found) >= 9 and [str(one) for one in found if not one.holds] == []


def test_scores_and_distances_in_fp32_are_those_of_the_cpu(full):
    pairs = [(d[:-1].tolist(), d[-1:].tolist()) for d in documents() if len(d) > 2]
    on_card = load_model(full)
    scores = CutScorer(on_card, BLOCKS).loglikelihoods(pairs, 64, "test")
    distances = angular_distances(on_card, documents())
    on_cpu = load_model(full).to("cpu")
    expected = CutScorer(on_cpu, BLOCKS).loglikelihoods(pairs, 64, "test")
    for block in BLOCKS:
        found = [score for score, _ in scores[block]]
        assert found == pytest.approx([score for score, _ in expected[block]], abs=1e-3)
    torch.testing.assert_close(
        distances.mean, angular_distances(on_cpu, documents()).mean, atol=1e-4, rtol=0, equal_nan=True
    )


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
@pytest.mark.parametrize("packing", [True, False])
def test_healing_in_parts_and_its_adapter(full, tmp_path, precision, packing):
    shape = {"rank": 8, "warmup": 2, "steps": 20, "batch": 8, "length": 64, "learning_rate": 1e-2}
    recipe = Healing(**shape, precision=precision, packing=packing)
    files = HealingFiles(full, full.parent / "text", tmp_path / "out", tmp_path / "state")
    heal(files, replace(recipe, batch_tokens=150))
    summary = json.loads((tmp_path / "out/heal.json").read_text())
    assert summary["peak_cuda_bytes"] > 0 and summary["alloc_retries"] >= 0
    losses = np.loadtxt(tmp_path / "out/training.csv", delimiter=",", skiprows=1)[:, 1]
    assert losses[-5:].mean() < losses[:5].mean()
    healed = load_healed(full, tmp_path / "out/adapter", precision)
    lora = {p.dtype for name, p in healed.named_parameters() if ".lora_" in name}
    assert lora == {torch.bfloat16}
    ids = torch.arange(3, 40, device="cuda")[None]
    with torch.no_grad():
        assert healed(ids).logits.isfinite().all()


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_speed_and_memory_fall_with_the_layers(full, precision):
    model, manifest = load_model(full, precision), read_json(full / "manifest.json")
    rows = measure(
        model, manifest, BLOCKS, SpeedSettings(batch=2, prompt=32, new=16, repeats=2), label="speed"
    )
    assert rows["memory_bytes"].is_monotonic_decreasing and (rows[["prefill", "decode"]] > 0).all(axis=None)
