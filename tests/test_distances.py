"""Distances against a plain double loop that shares no code with them."""

import csv
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from deeper_layers.data.batches import batches_by_length
from deeper_layers.errors import UserError
from deeper_layers.importance.angular import AngularDistances, angular_distances
from deeper_layers.models.load import load_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # so that distances differ well above rounding
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 97, size) for size in (7, 3, 12, 7, 1, 5, 9, 12)]


@pytest.fixture(scope="module")
def oracle(model, documents):
    """(first, n) -> distance of each document: one document at a time, no padding, float64 by hand."""
    cells = {}
    before_norm = []
    hook = model.model.norm.register_forward_pre_hook(lambda module, args: before_norm.append(args[0]))
    for document in documents:
        with torch.no_grad():
            out = model(torch.from_numpy(document)[None], output_hidden_states=True)
        states = [h[0, -1] for h in out.hidden_states[:-1]] + [before_norm.pop()[0, -1]]
        states = [[float(v) for v in s] for s in states]
        for first in range(len(states)):
            for after in range(first + 1, len(states)):
                a, b = states[first], states[after]
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                cosine = dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))
                cells.setdefault((first, after - first), []).append(math.acos(cosine) / math.pi)
    hook.remove()
    return cells


@pytest.mark.parametrize("batch_tokens", [1, 24, 10_000])
def test_every_cell_equals_the_plain_loop(model, documents, oracle, batch_tokens, tmp_path):
    distances = angular_distances(model, documents, batch_tokens)
    distances.write(tmp_path / "distances.csv")
    with open(tmp_path / "distances.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(int(r["first"]), int(r["n"])) for r in rows} == set(oracle)
    assert len(rows) == 5 * 6 // 2  # every pair of the six boundaries: l = 0 and x^(L) included
    for r in rows:
        values = oracle[int(r["first"]), int(r["n"])]
        assert float(r["distance"]) == pytest.approx(np.mean(values), abs=2e-6)
        assert float(r["stderr"]) == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5, abs=2e-6)
        assert int(r["samples"]) == len(documents)


def test_last_boundary_is_before_the_final_norm(model, documents):
    """With the final norm made extreme the distances do not change."""
    before = angular_distances(model, documents).mean
    weight = model.model.norm.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(torch.linspace(-5, 5, len(weight)))
    after = angular_distances(model, documents).mean
    with torch.no_grad():
        weight.copy_(kept)
    assert torch.equal(before, after)


def test_the_head_is_never_run_and_hooks_are_removed(model, documents):
    def fail(*_):
        raise AssertionError("lm_head was run")

    def hooks():  # transformers leaves some of its own
        return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.model.layers]

    before = hooks()
    hook = model.lm_head.register_forward_hook(fail)
    angular_distances(model, documents)
    hook.remove()
    assert hooks() == before


def test_equal_and_opposite_states_are_at_0_and_1_and_never_nan():
    states = torch.randn(1, 1000, 64) * 1e3
    distances = AngularDistances(2)
    distances.add(torch.cat([states, states * 3, -states]))
    assert distances.mean[0, 1] == pytest.approx(0, abs=1e-7)
    assert distances.mean[0, 2] == pytest.approx(1, abs=1e-7)
    assert not distances.mean.isnan().any() and not distances.stderr.isnan().any()


def test_batches_shrink_when_the_gpu_is_full(model, documents, oracle):
    """A GPU that holds 20 tokens: each size that does not fit is met once, and every document counts once."""
    refused, computed = [], []

    def full(module, args, kwargs):
        rows, length = (args[0] if args else kwargs["hidden_states"]).shape[:2]
        if rows * length > 20:
            refused.append(rows * length)
            raise RuntimeError("CUDA error: out of memory")
        computed.append(rows * length)

    with model.model.layers[3].register_forward_pre_hook(full, with_kwargs=True):
        distances = angular_distances(model, documents, 10_000)
    mean = distances.mean
    assert distances.samples == len(documents)
    for (first, n), values in oracle.items():
        assert float(mean[first, first + n]) == pytest.approx(np.mean(values), abs=2e-6)
    assert refused == [8 * 12, 4 * 12, 2 * 12] and max(computed) <= 20

    def always_full(*_):
        raise torch.OutOfMemoryError

    with (
        model.model.layers[3].register_forward_pre_hook(always_full),
        pytest.raises(UserError, match="one document of 12 tokens does not fit into memory.*nf4"),
    ):
        angular_distances(model, documents, 10_000)


def test_distances_of_a_batch_whose_sums_do_not_fit_count_once(model, documents, oracle, monkeypatch):
    whole = torch.Tensor.square

    def full(distance):
        if len(distance) > 2:
            raise torch.OutOfMemoryError
        return whole(distance)

    monkeypatch.setattr(torch.Tensor, "square", full)
    distances = angular_distances(model, documents, 10_000)
    monkeypatch.undo()
    assert distances.samples == len(documents)
    for (first, n), values in oracle.items():
        assert float(distances.mean[first, first + n]) == pytest.approx(np.mean(values), abs=2e-6)


def test_a_model_that_does_not_fit_is_one_line(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(
        UserError, match="in bf16 does not fit in memory: take precision nf4 or a larger card"
    ):
        load_model(tmp_path, "bf16")


def test_memory_does_not_grow_with_samples():
    distances = AngularDistances(3)
    size = sum(t.nelement() for t in (distances.total, distances.squares))
    for _ in range(3):
        distances.add(torch.randn(4, 10, 8))
    assert sum(v.nelement() for v in vars(distances).values() if isinstance(v, torch.Tensor)) == size
    assert distances.samples == 30


def test_batches_hold_every_document_once_and_keep_the_budget():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 100, 500).tolist()
    batches = batches_by_length(lengths, 256)
    assert sorted(i for b in batches for i in b) == list(range(500))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 256 for b in batches)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert padded < 1.15 * sum(lengths)
