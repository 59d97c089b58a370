"""Any set of layers may go: cut on disk, taken out in memory and skipped in a plain loop are one model. The
trie of cuts gives each cut's own numbers and runs each distinct beginning once."""

from __future__ import annotations

import random
import weakref

import pytest
import torch
import transformers

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.streamed_scorer import StreamedCutScorer
from deeper_layers.models.layers import removed
from deeper_layers.models.load import load_model
from deeper_layers.models.streaming import Stream
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.pruning.trie import trie
from helpers.tiny import ARCHITECTURES, IDS, VOCABULARY, identity_logits, logits, settled, tiny_model

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
NAMES = ["llama", "gemma3_text", "gpt2", "mixtral"]  # lists of layer types, tuples as outputs, experts
LAYERS = 6


def random_sets(rng: random.Random, n_layers: int, count: int) -> list[LayerSet]:
    return [
        LayerSet(tuple(rng.sample(range(n_layers), rng.randrange(1, n_layers - 1)))) for _ in range(count)
    ]


def prefixes(blocks: list[LayerSet], n_layers: int) -> set[tuple[int, ...]]:
    """What has to be run at least: every distinct beginning of the layers that a cut keeps."""
    kept = [[i for i in range(n_layers) if i not in block.removed] for block in blocks]
    return {tuple(layers[: i + 1]) for layers in kept for i in range(len(layers))}


def test_the_trie_runs_every_distinct_beginning_once():
    rng = random.Random(0)
    for _ in range(300):
        n_layers = rng.randint(3, 14)
        blocks = random_sets(rng, n_layers, rng.randint(1, 12)) + [FULL] * rng.randrange(2)
        root, found, cuts = trie(blocks, n_layers), [], []
        todo = [((), root)]
        while todo:
            run, node = todo.pop()
            if node.cut is not None:
                assert node.cut.kept(n_layers) == list(run)
                cuts.append(node.cut)
            for child in node.children:
                found.append((*run, child.layer))
                todo.append((found[-1], child))
        assert sorted(found) == sorted(prefixes(blocks, n_layers)) and len(found) == root.layers
        assert sorted(cuts) == sorted(set(blocks))
        assert root.states <= 1 + len(cuts).bit_length()


def test_runs_of_layers_cost_the_trunk_and_what_comes_after_each():
    rng = random.Random(1)
    for _ in range(100):
        n_layers = rng.randint(3, 40)
        starts = [rng.randrange(n_layers - 1) for _ in range(rng.randint(1, 9))]
        blocks = {LayerSet.contiguous(first, rng.randint(1, n_layers - first - 1)) for first in starts}
        root = trie([FULL, *blocks], n_layers)
        assert root.layers == n_layers + sum(n_layers - 1 - block.last for block in blocks)
        assert root.states == 2  # of the trunk and of a branch


def test_a_model_may_have_more_layers_than_python_has_frames():
    root = trie([FULL, LayerSet((5,))], 5000)
    assert (root.layers, root.states) == (5000 + 4994, 2)


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory):
    """(folder, model) of an architecture."""
    folder = tmp_path_factory.mktemp(request.param) / "full"
    tiny_model(request.param, **ARCHITECTURES[request.param]).save_pretrained(folder.parent / "base")
    adopt_checkpoint(folder.parent / "base", request.param, folder)
    return folder, settled(load_model(folder))


def test_a_cut_is_one_model_on_disk_in_memory_and_in_a_plain_loop(model, tmp_path):
    folder, whole = model
    for block in random_sets(random.Random(2), LAYERS, 4):
        wanted = identity_logits(whole, block)
        with removed(whole, block):
            assert torch.equal(logits(whole), wanted)
        cut_checkpoint(folder, block, tmp_path / str(block))
        verify_checkpoint(tmp_path / str(block), folder)
        assert torch.equal(logits(settled(load_model(tmp_path / str(block)))), wanted)


def requests(seed: int, count: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, most))]

    return [(tokens(9), tokens(3)) for _ in range(count)]


def test_the_trie_gives_the_numbers_of_each_cut_by_itself(model):
    folder, whole = model
    blocks = [FULL, *dict.fromkeys(random_sets(random.Random(3), LAYERS, 7))]
    together, separate = CutScorer(whole, blocks, batch=99), CutScorer(whole, blocks, batch=99, tree=False)
    asked = requests(4, 9)
    scores, expected = (scorer.loglikelihoods(asked, 64, "test") for scorer in (together, separate))
    for block in blocks:
        assert [a for a, _ in scores[block]] == pytest.approx([a for a, _ in expected[block]], abs=1e-5)
        assert [hit for _, hit in scores[block]] == [hit for _, hit in expected[block]]
    assert len({str(s) for s in scores.values()}) == len(blocks)
    counts = together.layer_counts()
    assert counts == {
        "run": len(prefixes(blocks, LAYERS)),
        "separate": sum(LAYERS - block.n for block in blocks),
        "tree": True,
    }
    streamed = StreamedCutScorer(Stream(folder), blocks, batch=99)
    assert streamed.loglikelihoods(asked, 64, "test") == scores
    assert streamed.layer_counts() == counts


def test_each_beginning_runs_once_and_states_are_as_few_as_said(model, monkeypatch):
    _, whole = model
    for seed in range(5):
        blocks = [FULL, *dict.fromkeys(random_sets(random.Random(seed), LAYERS, 9))]
        scorer, alive, most = CutScorer(whole, blocks), [], 0
        start = scorer.tree._start

        def watched(*rows, start=start, alive=alive):
            before, call = start(*rows)
            alive.append(weakref.ref(before))

            def run(i, hidden):
                nonlocal most
                output = call(i, hidden)
                alive.append(weakref.ref(output))
                most = max(most, len({id(state()) for state in alive if state() is not None}))
                return output

            return before, run

        monkeypatch.setattr(scorer.tree, "_start", watched)
        with torch.no_grad():
            for block, states in scorer.tree.states(IDS, scorer.root):
                assert block in blocks
                del states
        assert len(alive) == 1 + len(prefixes(blocks, LAYERS)) == 1 + scorer.root.layers
        # One more while a layer runs.
        assert scorer.root.states <= most <= scorer.root.states + 1
