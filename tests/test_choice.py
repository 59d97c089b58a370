"""Strategies beyond the paper's, against plain definitions; their settings, and what they refuse."""

import csv
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from deeper_layers.errors import UserError
from deeper_layers.importance.influence import block_influence, streamed_influence
from deeper_layers.importance.iterative import iterative_influence
from deeper_layers.models.streaming import Stream
from deeper_layers.pruning.given import published_orders
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.pruning.selection import choose
from deeper_layers.pruning.strategies import STRATEGIES
from deeper_layers.pruning.strategy import Evidence
from deeper_layers.settings.strategies import StrategySettings
from deeper_layers.study import options
from deeper_layers.study.evidence import kind_of, protected, step
from helpers.config import ROOT, changed, checked
from helpers.healing import counting, tiny_llama
from helpers.small_study import changed as small
from helpers.small_study import prepare, run

L = 8


NOTHING = Evidence()


def chosen(n: int, evidence: Evidence = NOTHING, **settings) -> tuple[int, ...] | None:
    (found,) = [
        choice.block.removed
        for choice in choose({"it": StrategySettings(**settings)}, [n], L, evidence)
        if choice.n
    ] or [None]
    return found


def measured(tmp_path, name: str, rows: list[dict]) -> Evidence:
    path = tmp_path / f"{name}.csv"
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(rows)
    return Evidence(files={name: path})


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    return [np.array(document) for document in counting(30, seed=2)]


@pytest.mark.parametrize("batch_tokens", [1, 64])
def test_influence_is_the_mean_cosine_of_all_tokens_hidden_states(documents, batch_tokens):
    model = tiny_llama(5, initializer_range=0.2)
    found = block_influence(model, documents, batch_tokens)
    cosines, sums, counts = [[] for _ in range(5)], [], []
    for document in documents:
        states = []

        def keep(_module, _arguments, output, states=states):
            states.append((output if torch.is_tensor(output) else output[0])[0])

        # Hooks, since the hidden_states of transformers end behind the last norm.
        hooks = [layer.register_forward_hook(keep) for layer in model.model.layers]
        with torch.no_grad():
            first = model(torch.tensor(document)[None], output_hidden_states=True).hidden_states[0][0]
        for hook in hooks:
            hook.remove()
        of_document = []
        for i, (before, after) in enumerate(zip([first, *states], states, strict=False)):
            a, b = before.double().numpy(), after.double().numpy()
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            cosines[i].extend(cosine)
            of_document.append((1 - cosine).sum())
        sums.append(of_document)
        counts.append(len(document))
    expected = 1 - np.array([np.mean(c) for c in cosines])
    assert np.allclose(found.mean, expected, rtol=1e-6)
    assert sum(found.tokens) == sum(counts)
    residuals = np.array(sums) - np.outer(counts, expected)
    error = np.sqrt(30 / 29 * (residuals**2).sum(0)) / sum(counts)
    assert np.allclose(found.stderr, error, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("protect", [(), (0, -1)])
def test_iterative_measures_again_without_the_layers_that_are_gone(documents, step, protect):
    """Against models that are built anew for each set of layers, and hidden states as transformers gives
    them."""
    model = tiny_llama(7, initializer_range=0.2)
    free = [layer for layer in range(7) if layer not in {p % 7 for p in protect}]
    found = iterative_influence(model, documents, 6, step, free)
    gone: list[int] = []
    expected = []
    while len(gone) < min(6, len(free)):
        kept = [layer for layer in range(7) if layer not in gone]
        smaller = tiny_llama(len(kept), initializer_range=0.2)
        state = model.state_dict()
        for new, old in enumerate(kept):
            prefix = f"model.layers.{old}."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            smaller.model.layers[new].load_state_dict(own)
        rest = {k: v for k, v in state.items() if ".layers." not in k}
        smaller.load_state_dict(rest, strict=False)
        of_layer = dict(zip(kept, influence_by_hand(smaller, documents), strict=True))
        order = sorted((of_layer[layer], layer) for layer in free if layer not in gone)
        for value, layer in order[: min(step, min(6, len(free)) - len(gone))]:
            gone.append(layer)
            expected.append((len(gone), layer, pytest.approx(value, rel=1e-5)))
    assert found.rows == expected


@torch.no_grad()
def influence_by_hand(model, documents) -> list[float]:
    sums, tokens = np.zeros(model.config.num_hidden_layers), 0
    for document in documents:
        states: list = []
        keep = partial(lambda kept, _, args, out: kept.append((args[0], out)), states)
        hooks = [layer.register_forward_hook(keep) for layer in model.model.layers]
        model(input_ids=torch.from_numpy(document)[None])
        for hook in hooks:
            hook.remove()
        for i, (before, after) in enumerate(states):
            a, b = before[0].double(), after[0].double()
            sums[i] += (1 - (a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)).sum()
        tokens += len(document)
    return (sums / tokens).tolist()


def test_iterative_takes_the_first_of_the_order(tmp_path):
    rows = [{"n": n, "layer": layer, "influence": 0.1} for n, layer in ((1, 5), (2, 1), (3, 6))]
    evidence = measured(tmp_path, "iterative_influence", rows)
    assert chosen(2, evidence, rule="iterative") == (1, 5)
    assert chosen(4, evidence, rule="iterative") is None
    by_two = StrategySettings(rule="iterative", step=2, protect=(0, -1), text="c4")
    name = by_two.evidence("iterative_influence")
    assert name == "iterative_influence+by2+m1+0-c4"
    assert (kind_of(name), protected(name), step(name)) == ("iterative_influence", [-1, 0], 2)
    assert StrategySettings(rule="greedy", protect=(3,)).evidence("greedy_losses") == "greedy_losses+3"


def test_a_streamed_model_has_the_same_influence(documents, tmp_path):
    model = tiny_llama(5, initializer_range=0.2)
    model.save_pretrained(tmp_path)
    streamed = streamed_influence(Stream(tmp_path, "fp32"), documents, 64)
    assert np.allclose(streamed.mean, block_influence(model, documents, 64).mean, rtol=1e-12)


def test_influence_drops_the_least_wherever_they_are(tmp_path):
    values = [0.5, 0.1, 0.3, 0.1, 0.4, 0.05, 0.9, 0.2]
    evidence = measured(
        tmp_path, "influence", [{"layer": i, "influence": value} for i, value in enumerate(values)]
    )
    assert chosen(1, evidence, rule="influence") == (5,)
    assert chosen(2, evidence, rule="influence") == (1, 5)  # a tie goes to the lower layer
    assert chosen(4, evidence, rule="influence") == (1, 3, 5, 7)
    assert chosen(4, evidence, rule="influence", protect=[1, -1]) == (2, 3, 4, 5)
    assert chosen(7, evidence, rule="influence", protect=[1, -1]) is None


def test_protected_layers_stay(tmp_path):
    distances = [
        {"first": first, "n": n, "distance": 0.01 * first} for n in range(1, L) for first in range(L - n + 1)
    ]
    evidence = measured(tmp_path, "distances", distances)
    assert chosen(2, evidence, rule="similarity") == (0, 1)
    assert chosen(2, evidence, rule="similarity", protect=[0, 2]) == (3, 4)
    assert chosen(5, evidence, rule="similarity", protect=[0, 2]) == (3, 4, 5, 6, 7)
    assert chosen(6, evidence, rule="similarity", protect=[0, 2]) is None
    assert chosen(3, rule="deepest") == (4, 5, 6) and chosen(3, rule="last") == (5, 6, 7)
    assert chosen(3, rule="deepest", protect=[5]) == (3, 4, 6)
    assert chosen(3, rule="last", protect=[-1]) == (4, 5, 6)
    for seed in range(20):
        assert not {2, 7} & set(chosen(4, rule="random", seed=seed, protect=[2, -1]))
    with pytest.raises(UserError, match="protect names layer 8 of a model of 8 layers"):
        chosen(1, rule="last", protect=[8])


def test_random_is_drawn_by_the_seed_and_fair():
    sets = [chosen(3, rule="random", seed=seed) for seed in range(400)]
    assert all(len(set(layers)) == 3 for layers in sets)
    counts = np.bincount([layer for layers in sets for layer in layers], minlength=L)
    assert counts.min() > 100 and counts.max() < 200  # 150 each, 10 their deviation
    blocks = [chosen(3, rule="random", seed=seed, contiguous=True) for seed in range(300)]
    assert all(b == tuple(range(b[0], b[0] + 3)) for b in blocks)
    counts = np.bincount([b[0] for b in blocks], minlength=6)
    assert counts.min() > 25 and len(counts) == 6
    # On every machine and Python the same.
    assert chosen(3, rule="random", seed=0) == (0, 3, 7)
    assert chosen(3, rule="random", seed=0, contiguous=True) == (3, 4, 5)


def test_given_layers_go_in_their_order():
    assert chosen(2, rule="given", layers=[6, 1, 3]) == (1, 6)
    assert chosen(2, rule="given", layers=[6, 1, 3], protect=[1]) == (3, 6)
    assert chosen(4, rule="given", layers=[6, 1, 3]) is None
    with pytest.raises(UserError, match="layers names layer 8 of a model of 8 layers"):
        chosen(1, rule="given", layers=[1, 8])


def test_published_orders_are_of_their_models():
    orders = published_orders()
    assert {name for name, _ in orders} == {"shortened-llama-ppl"}
    assert all(len(set(layers)) == len(layers) and max(layers) < 32 for layers in orders.values())
    settings = StrategySettings(rule="given", order="shortened-llama-ppl")
    llama_3 = Evidence("meta-llama/Meta-Llama-3-8B")
    (_, cut) = choose({"it": settings}, [4], 32, llama_3)
    assert cut.block == LayerSet((8, 9, 11, 23))
    assert choose({"it": settings}, [4], 32, Evidence("another")) == []


REFUSED = [
    ({"x": {"rule": "similarty"}}, "strategies.x.rule: 'similarty' is not known; did you mean 'similarity'?"),
    ({"x": {"rule": "random", "layers": [1]}}, "strategies.x.layers: random does not read it; it reads"),
    ({"x": {"rule": "deepest", "text": "world"}}, "strategies.x.text: deepest does not read it"),
    ({"x": {"rule": "published", "protect": [0]}}, "strategies.x.protect: published does not read it"),
    ({"x": {"rule": "given"}}, "strategies.x: given takes either layers or order"),
    (
        {"x": {"rule": "given", "layers": [1], "order": "y"}},
        "strategies.x: given takes either layers or order",
    ),
    ({"x": {"rule": "influence", "text": "wurld"}}, "strategies.x.text: 'wurld' is not known; did you mean"),
    ({"last": {"rule": "random"}}, "strategies.last: last is a rule by itself; give random with settings"),
    ({"x": {"rule": "random", "seed": -1}}, "strategies.x: seed is -1, it must be at least 0"),
    ({"a/b": {"rule": "random"}}, "strategies.a/b: not a name that can be a folder here"),
]


@pytest.mark.parametrize(("strategies", "said"), REFUSED, ids=[said[:40] for _, said in REFUSED])
def test_what_is_no_strategy(strategies, said):
    (name,) = strategies
    with pytest.raises(UserError) as error:
        config = changed(strategies=strategies)
        config["study"]["strategies"] = ["deepest", name]
        checked(config)
    assert said in str(error.value)


def test_rules_by_themselves_leave_the_command_as_it_was():
    """So that what was chosen before stays as it is."""
    study = checked(changed())
    assert options.blocks(study, study.models[0]).endswith("--strategies similarity deepest")
    assert {rule for rule in STRATEGIES if STRATEGIES[rule].needs} == {
        *("similarity", "influence", "iterative", "loss", "one_shot_loss", "greedy")
    }


@pytest.mark.slow
def test_a_study_of_many_strategies_and_two_texts(tmp_path):
    """Evidence is measured once for each text; each strategy has its rows."""
    strategies = {
        "other": {"rule": "similarity", "text": "other"},
        "bi-other": {"rule": "influence", "text": "other", "protect": [0]},
        "random-1": {"rule": "random", "seed": 1},
        "order": {"rule": "given", "layers": [3, 1]},
        "by-two": {"rule": "iterative", "step": 2, "protect": [-1]},
    }
    config = small(
        study__remove=[1, 2, 3],
        study__strategies=["similarity", "influence", "last", *strategies],
        study__recipes=[],
        strategies=strategies,
    )
    config["texts"]["other"] = config["texts"]["world"] | {"seed": 5}
    folder = prepare(tmp_path, config)
    plan = run(folder, "plan", "--cores", "1")
    assert "| distances " in plan and "| influence " in plan
    said = run(folder, "--cores", "2")
    said = [said.count(f"start: Measuring the {what}") for what in ("distances", "influence of the layers")]
    assert said == [2, 2]
    results = folder / "results/tiny"
    names = {"distances", "distances-other", "influence", "influence-other", "iterative_influence+by2+m1"}
    assert {path.stem for path in results.glob("*.csv")} == names | {"blocks"}
    with open(results / "influence-other.csv") as file:
        found = {int(row["layer"]): float(row["influence"]) for row in csv.DictReader(file)}
    with open(folder / "results/table.csv") as file:
        rows = {(row["strategy"], int(row["n"])): row["block"] for row in csv.DictReader(file)}
    least = min(range(1, 5), key=found.__getitem__)
    assert rows["bi-other", 1] == f"drop_{least}-{least}"
    assert rows["order", 2] == "drop_1_3" and ("order", 3) not in rows
    assert rows["last", 2] == "drop_3-4"
    with open(results / "iterative_influence+by2+m1.csv") as file:
        order = [int(row["layer"]) for row in csv.DictReader(file)]
    assert len(order) == 3 and 4 not in order
    assert rows["by-two", 2] == str(LayerSet(tuple(order[:2])))
    assert "Nothing to be done" in run(folder, "--cores", "1")


def test_the_program_says_which_evidence_it_lacks(tmp_path):
    program = [
        sys.executable,
        ROOT / "scripts/blocks.py",
        "--checkpoint",
        tmp_path,
        "--out",
        tmp_path / "b.csv",
    ]
    (tmp_path / "manifest.json").write_text('{"n_layers": 8, "source": {"id": "x"}}')
    rules = '{"bi": {"rule": "influence", "text": "other"}}'
    failed = subprocess.run(
        [*program, "--strategies", "bi", "--rules", rules, "--remove", "2"], capture_output=True, text=True
    )
    assert failed.stderr == (
        "error: a strategy chooses by influence-other: give --evidence influence-other=FILE\n"
    )
