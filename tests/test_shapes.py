"""Padding to few shapes, as on an H100, changes no number. Here the CPU pads as if it were one."""

import numpy as np
import pytest
import torch

from deeper_layers.data.batches import batches_by_length, padded
from deeper_layers.evaluation.batches import Batch
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.inputs import inputs_of
from deeper_layers.evaluation.rows import row_of
from deeper_layers.healing.objective import Objective
from deeper_layers.importance.angular import angular_distances
from deeper_layers.models import shapes
from deeper_layers.models.shapes import padded_length, positions
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.settings.healing import Healing
from helpers.tiny import VOCABULARY, tiny_model

CPU = torch.device("cpu")


@pytest.fixture
def few_shapes(monkeypatch):
    """From when it is called on."""
    return lambda: monkeypatch.setattr(shapes, "_plans_for_each_shape", lambda device: True)


def documents(lengths=range(2, 90, 3)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, VOCABULARY, size=length) for length in lengths]


def test_lengths_are_few_and_never_more_than_the_model_has_places_for(few_shapes):
    assert padded_length(33, CPU) == 33
    few_shapes()
    lengths = {1: 16, 16: 16, 17: 32, 255: 256, 256: 256, 257: 320, 2047: 2048}
    assert {n: padded_length(n, CPU) for n in lengths} == lengths
    assert len({padded_length(n, CPU) for n in range(1, 2049)}) == 16 + 28
    assert padded_length(990, CPU, longest=1000) == 1000 and padded_length(1200, CPU, longest=1000) == 1200


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_and_distances_do_not_change(few_shapes, architecture):
    model, blocks = tiny_model(architecture), [FULL, LayerSet.contiguous(1, 2)]
    # As many tokens as the model has positions: padding to more would fail where these are learned.
    texts = documents([*range(3, 60, 4), min(positions(model), 300)])
    pairs = [(text[:-2].tolist(), text[-2:].tolist()) for text in texts]
    expected = CutScorer(model, blocks).loglikelihoods(pairs, positions(model), "test")
    distances = angular_distances(model, texts, 200)
    few_shapes()
    found = CutScorer(model, blocks).loglikelihoods(pairs, positions(model), "test")
    for block in blocks:
        assert [a for a, _ in found[block]] == pytest.approx([a for a, _ in expected[block]], abs=1e-4)
        assert [hit for _, hit in found[block]] == [hit for _, hit in expected[block]]
    torch.testing.assert_close(
        angular_distances(model, texts, 200).mean, distances.mean, atol=1e-6, rtol=0, equal_nan=True
    )


def test_batches_count_what_is_padded(few_shapes):
    few_shapes()
    scorer = CutScorer(tiny_model("llama"), [FULL])
    batch = Batch.of([row_of(entry) for entry in inputs_of([([3, 4, 5], [6])], 64)], CPU, scorer.padded)
    assert batch.ids.shape == (1, 16)
    sizes = [len(b) for b in batches_by_length([5] * 100, 64, scorer.padded)]
    assert max(sizes) == 4


def test_the_loss_of_healing_does_not_change():
    model, texts = tiny_model("llama"), documents([5, 9, 21, 12])
    objective, losses = Objective(model, Healing()), []
    for to in (lambda n: n, lambda n: 64):
        ids, last = padded(texts, to=to)
        losses.append(objective(ids, last)["cross_entropy"])
    assert ids.shape == (4, 64)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
