"""Losses that choose layers, against models whose layers are deleted, run document by document."""

import copy
import csv
import json

import numpy as np
import pytest
import torch

from deeper_layers.errors import UserError
from deeper_layers.importance.losses import (
    MeasuredLosses,
    block_losses,
    greedy_losses,
    layer_losses,
    write_rows,
)
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.pruning.selection import choose
from deeper_layers.pruning.strategy import Evidence
from deeper_layers.pruning.trie import trie
from deeper_layers.settings.strategies import StrategySettings
from deeper_layers.study.estimates import layers_of_choice
from deeper_layers.study.evidence import kind_of, measured, protected
from deeper_layers.study.jobs import jobs
from helpers.config import changed, checked
from helpers.healing import counting, tiny_llama
from helpers.small_study import changed as small
from helpers.small_study import prepare, run

L = 7


@pytest.fixture(scope="module")
def model():
    return tiny_llama(L, initializer_range=0.3)


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    return [np.array(document) for document in counting(9, seed=2)]


@pytest.fixture(scope="module")
def plain(model, documents):
    """The loss without some layers, with no code of ours."""

    def loss(gone) -> float:
        cut = copy.deepcopy(model)
        kept = [layer for i, layer in enumerate(cut.model.layers) if i not in gone]
        cut.model.layers = torch.nn.ModuleList(kept)
        cut.config.num_hidden_layers = len(kept)
        nats, tokens = 0.0, 0
        for document in documents:
            ids = torch.tensor(document)[None]
            with torch.no_grad():
                logits = cut(ids, use_cache=False).logits[0, :-1].double()
            nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            tokens += len(document) - 1
        return nats / tokens

    return loss


def chosen(tmp_path, kind, rows, n, n_layers=L, **settings):
    """What a strategy chooses of ``rows``, written and read as in a study."""
    path = tmp_path / f"{kind}.csv"
    write_rows(path, list(rows[0]), rows)
    one = StrategySettings(**settings)
    choices = choose({"it": one}, [n], n_layers, Evidence(files={one.evidence(kind): path}))
    return choices[-1].block.removed if choices else None


@pytest.mark.parametrize("batch", [None, 2])
def test_blocks_by_loss(model, documents, plain, tmp_path, batch):
    rows = block_losses(MeasuredLosses(lambda: model, documents, batch=batch), [3, 1, L - 1], L)
    expected = {
        (first, n): plain(range(first, first + n)) for n in (1, 3, L - 1) for first in range(L - n + 1)
    }
    assert {(row["first"], row["n"]): row["loss"] for row in rows} == pytest.approx(expected, rel=1e-5)
    for n in (1, 3):
        best = min(range(L - n + 1), key=lambda first: expected[first, n])
        assert chosen(tmp_path, "block_losses", rows, n, rule="loss") == tuple(range(best, best + n))
        free = [first for first in range(L - n + 1) if not {best, L - 1} & set(range(first, first + n))]
        best_free = min(free, key=lambda first: expected[first, n])
        found = chosen(tmp_path, "block_losses", rows, n, rule="loss", protect=[best, -1])
        assert found == tuple(range(best_free, best_free + n))


def test_layers_one_by_one(model, documents, plain, tmp_path):
    rows = layer_losses(MeasuredLosses(lambda: model, documents), L)
    expected = [plain([layer]) for layer in range(L)]
    assert [row["loss"] for row in rows] == pytest.approx(expected, rel=1e-5)
    order = sorted(range(L), key=expected.__getitem__)
    assert chosen(tmp_path, "layer_losses", rows, 4, rule="one_shot_loss") == tuple(sorted(order[:4]))
    kept = order[0]
    found = chosen(tmp_path, "layer_losses", rows, 3, rule="one_shot_loss", protect=[kept])
    assert found == tuple(sorted(order[1:4]))
    all_kept = chosen(tmp_path, "layer_losses", rows, L - 1, rule="one_shot_loss", protect=[0, 1])
    assert all_kept is None


def test_greedy_is_a_search_by_deleting(model, documents, plain, tmp_path):
    rows = greedy_losses(MeasuredLosses(lambda: model, documents), L - 1, range(L), L)
    gone: list[int] = []
    for row in rows:
        expected = {i: plain([*gone, i]) for i in range(1, L - 1) if i not in gone}
        layer = min(expected, key=lambda i: (expected[i], i))
        assert row["layer"] == layer and row["loss"] == pytest.approx(expected[layer], rel=1e-5)
        gone.append(layer)
    assert [row["n"] for row in rows] == list(range(1, L - 1))  # the first and the last one stay
    assert chosen(tmp_path, "greedy_losses", rows, 3, rule="greedy") == tuple(sorted(gone[:3]))
    assert chosen(tmp_path, "greedy_losses", rows, L - 1, rule="greedy") is None
    free = [layer for layer in range(L) if layer != gone[0]]
    assert gone[0] not in [
        row["layer"] for row in greedy_losses(MeasuredLosses(lambda: model, documents), 3, free, L)
    ]


def test_ties_go_to_the_lowest(model, documents, tmp_path):
    """Layers that do nothing, which cost nothing to remove."""
    idle = copy.deepcopy(model)
    for i in (2, 3, 5):
        for weight in (
            idle.model.layers[i].self_attn.o_proj.weight,
            idle.model.layers[i].mlp.down_proj.weight,
        ):
            weight.data.zero_()
    rows = greedy_losses(MeasuredLosses(lambda: idle, documents), 3, [5, 3, 2], L)
    assert [row["layer"] for row in rows] == [2, 3, 5]
    assert len({row["loss"] for row in rows}) == 1
    even = [{"layer": i, "loss": 1.0 + (i < 2), "stderr": 0} for i in range(L)]
    assert chosen(tmp_path, "layer_losses", even, 2, rule="one_shot_loss") == (2, 3)
    blocks = [{"first": i, "n": 2, "loss": 1.0, "stderr": 0} for i in range(L - 1)]
    assert chosen(tmp_path, "block_losses", blocks, 2, rule="loss") == (0, 1)


class Counted:
    """The feed-forward networks of a model count the tokens that pass through them; ``stop`` ends that."""

    def __init__(self, model, stop=float("inf")):
        self.tokens = 0

        def count(_module, arguments):
            self.tokens += arguments[0].shape[:-1].numel()
            if self.tokens > stop:
                raise KeyboardInterrupt

        self.hooks = [layer.mlp.register_forward_pre_hook(count) for layer in model.model.layers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def test_greedy_runs_little_more_than_half_of_separate_passes():
    deep = tiny_llama(20, initializer_range=0.3)
    documents = list(np.random.default_rng(0).integers(64, size=(40, 30)))
    measured_losses = MeasuredLosses(lambda: deep, documents)
    with Counted(deep) as counted:
        greedy_losses(measured_losses, 3, range(20), 20)
    separate = sum((layers - 2) * (layers - 1) for layers in (20, 19, 18))
    tokens = 40 * 29  # the last one of a document is only predicted
    assert counted.tokens <= 0.6 * separate * tokens  # with what finds out that the tree is exact
    cost = measured_losses.cost
    batches = cost["separate"] / separate
    assert cost["run"] == layers_of_choice("greedy_losses", (1, 3), 20) * batches <= 0.6 * cost["separate"]
    assert cost["run"] / batches * tokens <= counted.tokens


def test_a_search_that_was_killed_goes_on_where_it_was(model, documents, tmp_path):
    whole = MeasuredLosses(lambda: model, documents, tmp_path / "whole.jsonl", batch=3)
    with Counted(model) as all_of_it:
        rows = greedy_losses(whole, 4, range(L), L)
    write_rows(tmp_path / "whole.csv", list(rows[0]), rows)
    journal = tmp_path / "killed.jsonl"
    spent = 0
    with Counted(model, stop=0.8 * all_of_it.tokens) as counted, pytest.raises(KeyboardInterrupt):
        greedy_losses(MeasuredLosses(lambda: model, documents, journal, batch=3), 4, range(L), L)
    spent += counted.tokens
    finished = len(journal.read_text().splitlines())
    assert 1 <= finished < 4
    with open(journal, "a") as file:
        file.write('{"losses": {"drop_1-1": [1')  # the line that it died in
    again = MeasuredLosses(lambda: model, documents, journal, batch=3)
    asked = []
    inner = again._scorer
    again._scorer = lambda cuts: asked.append(len(cuts)) or inner(cuts)
    with Counted(model) as counted:
        found = greedy_losses(again, 4, range(L), L)
    assert len(asked) == 4 - finished  # no finished step is run again
    assert spent + counted.tokens < 1.25 * all_of_it.tokens  # nor a finished batch
    write_rows(tmp_path / "killed.csv", list(found[0]), found)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not any(journal.with_suffix("").iterdir())
    assert len(MeasuredLosses(lambda: None, documents, journal).known) == 5 + 4 + 3 + 2  # all lines are whole


def test_more_layers_cost_only_what_is_new(model, documents, tmp_path):
    def never():
        raise AssertionError("all of this is known")

    journal = tmp_path / "blocks.jsonl"
    block_losses(MeasuredLosses(lambda: model, documents, journal), [2], L)
    rows = block_losses(more := MeasuredLosses(lambda: model, documents, journal), [2, 3], L)
    lines = [json.loads(line)["losses"] for line in journal.read_text().splitlines()]
    assert [len(line) for line in lines] == [L - 1, L - 2]
    assert rows == block_losses(MeasuredLosses(lambda: model, documents), [2, 3], L)
    separate = trie([LayerSet.contiguous(i, n) for n in (2, 3) for i in range(L - n + 1)], L).layers
    assert more.cost["run"] >= separate
    assert block_losses(MeasuredLosses(never, documents, journal), [3], L) == rows[L - 1 :]
    greedy = tmp_path / "greedy.jsonl"
    greedy_losses(MeasuredLosses(lambda: model, documents, greedy), 2, range(L), L)
    greedy_losses(MeasuredLosses(lambda: model, documents, greedy), 3, range(L), L)
    assert len(greedy.read_text().splitlines()) == 3
    greedy_losses(MeasuredLosses(never, documents, greedy), 1, range(L), L)


@pytest.mark.parametrize("kind", ["block_losses", "layer_losses"])
def test_the_plan_counts_the_layers_of_the_tree(kind):
    """Of blocks the sum over the first layer of those after it, and the trunk."""
    ns = (2, 5) if kind == "block_losses" else (1,)
    cuts = [LayerSet.contiguous(first, n) for n in ns for first in range(12 - n + 1)]
    assert layers_of_choice(kind, ns, 12) == trie(cuts, 12).layers
    branches = sum(12 - n - first for n in ns for first in range(12 - n + 1))
    assert branches <= layers_of_choice(kind, ns, 12) <= branches + 12


def test_evidence_of_a_search_names_what_is_protected():
    settings = StrategySettings(rule="greedy", protect=(3, -1), text="c4-en")
    assert settings.evidence("layer_losses") == "layer_losses-c4-en"
    name = settings.evidence("greedy_losses")
    assert name == "greedy_losses+m1+3-c4-en"
    assert kind_of(name) == "greedy_losses" and protected(name) == [-1, 3]
    assert measured({"losses": {"text": "x", "samples": 3}}, name) == {"text": "c4-en", "samples": 3}
    assert StrategySettings(rule="greedy").evidence("greedy_losses") == "greedy_losses"


def test_a_study_chooses_by_loss(tmp_path):
    """Also more n, which keeps what was measured."""
    config = small(study__remove=[1], study__strategies=["loss", "kept"], study__recipes=[])
    config["strategies"] = {"kept": {"rule": "greedy", "protect": [1, -2]}}
    config["losses"] = {"text": "world", "samples": 8, "precision": "fp32"}
    folder = prepare(tmp_path, config)
    said = run(folder, "--cores", "2", "results/tiny/blocks.csv")
    assert said.count("start: Measuring the losses") == 2 and "distances" not in said
    config["study"]["remove"] = [1, 2]
    prepare(tmp_path, config)
    run(folder, "--cores", "2", "results/tiny/blocks.csv")
    results = folder / "results/tiny"
    (kept,) = (results / ".losses").glob("block_losses-*.jsonl")
    assert [len(json.loads(line)["losses"]) for line in kept.read_text().splitlines()] == [5, 4]
    with open(results / "blocks.csv") as file:
        blocks = {(row["strategy"], row["n"]): row["block"] for row in csv.DictReader(file)}
    with open(results / "block_losses.csv") as file:
        rows = {int(row["first"]): float(row["loss"]) for row in csv.DictReader(file) if row["n"] == "2"}
    best = min(rows, key=rows.__getitem__)
    assert blocks["loss", "2"] == f"drop_{best}-{best + 1}"
    assert blocks["kept", "1"] == "drop_2-2" and ("kept", "2") not in blocks
    layers = json.loads((results / "greedy_losses+m2+1.json").read_text())["layers"]
    assert 0 < layers["run"] <= layers["separate"]


def test_the_plan_knows_the_losses():
    config = changed(study__remove=[2, 3], study__strategies=["loss", "one_shot_loss", "greedy"])
    config["losses"] = {"text": "world", "split": "calibration", "samples": 8, "length": 16}
    config["losses"] |= {"precision": "fp32", "batch": None}
    study = checked(config)
    found = [job for job in jobs(study) if job.stage == "losses"]
    assert len(found) == 3 * len(study.models)
    n_layers = study.model(study.models[0]).n_layers
    asked = [layers_of_choice(kind_of(name), (2, 3), n_layers) for name in study.evidence]
    tokens = [job.work.tokens for job in found[:3]]
    assert tokens == pytest.approx([8 * 16 * layers / n_layers for layers in asked])


def test_a_section_that_is_missing_is_named():
    with pytest.raises(UserError, match="losses: the strategy greedy needs them; write losses: {text: NAME}"):
        checked(changed(study__strategies=["greedy"]))
