"""Blocks and strategies against published facts and plain definitions."""

import csv
import itertools
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deeper_layers.errors import UserError
from deeper_layers.pruning.choices import Choice, read_choices, write_choices
from deeper_layers.pruning.deepest import deepest
from deeper_layers.pruning.layer_set import CUT_PATTERN, FULL, NAME_PATTERN, LayerSet
from deeper_layers.pruning.published_blocks import published_blocks
from deeper_layers.pruning.selection import PendingBlock, choose, expected
from deeper_layers.pruning.similarity import similarity
from deeper_layers.pruning.strategy import Evidence, read_distances
from deeper_layers.settings.strategies import StrategySettings
from helpers.config import ROOT


def rules(*names: str) -> dict[str, StrategySettings]:
    """Strategies that are rules by themselves."""
    return {name: StrategySettings(rule=name) for name in names}


NAMES = {
    "full": (),
    "drop_21-28": range(21, 29),
    "drop_5-5": [5],
    "drop_3_7-9": [3, 7, 8, 9],
    "drop_0-1_4_6": [0, 1, 4, 6],
}
OTHERWISE = {  # a name that is not how its set is written, and the one that is
    "drop_3": "drop_3-3",
    "drop_7-9_3": "drop_3_7-9",
    "drop_3_4": "drop_3-4",
    "drop_3-5_4": "drop_3-5",
    "drop_2-2_4": "drop_2_4",
    "drop_03-4": "drop_3-4",
}
NO_NAMES = ["drop_8-2", "21-28", "drop_-1-2", "", "drop_", "drop_3__4", "drop_3_", "drop_0-99999999999999"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_which_layers_are_gone(name):
    block = LayerSet(tuple(NAMES[name]))
    assert str(block) == name and LayerSet.parse(name) == block
    assert re.fullmatch(NAME_PATTERN, name)
    assert bool(re.fullmatch(CUT_PATTERN, name)) == (name != "full")


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_set_has_one_name_and_others_are_refused_with_it(name):
    with pytest.raises(UserError, match=f"write {OTHERWISE[name]}$"):
        LayerSet.parse(name)


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name(name):
    with pytest.raises(UserError, match="drop_FIRST-LAST as in drop_21-28, or drop_3_7-9"):
        LayerSet.parse(name)


def test_random_sets_keep_renumber_and_name_layers_as_plain_lists_do():
    rng = random.Random(0)
    for _ in range(300):
        n_layers = rng.randint(2, 30)
        gone = rng.sample(range(n_layers), rng.randrange(n_layers))
        block = LayerSet(tuple(gone))
        kept = [i for i in range(n_layers) if i not in gone]
        assert block.kept(n_layers) == kept and block.n == len(gone) == n_layers - len(kept)
        assert [block.new_index(i) for i in range(n_layers)] == [
            kept.index(i) if i in kept else None for i in range(n_layers)
        ]
        assert [i for i in range(n_layers) if i in block] == sorted(gone) == list(block.removed)
        assert sorted(gone) == [i for first, last in block.runs for i in range(first, last + 1)]
        assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(block.runs))
        assert LayerSet.parse(str(block)) == block and re.fullmatch(NAME_PATTERN, str(block))


def test_a_block_is_of_layers_that_the_model_has():
    assert LayerSet.contiguous(5, 0) == FULL and LayerSet((4, 2, 3)) == LayerSet.contiguous(2, 3)
    with pytest.raises(UserError, match="there is no layer -1"):
        LayerSet.contiguous(-1, 2)
    for block in (LayerSet.contiguous(0, 7), LayerSet.contiguous(5, 3), LayerSet((2, 7))):
        with pytest.raises(UserError, match="at least one must stay"):
            block.kept(7)


def measured(folder: Path, distances: dict, model_id: str = "other") -> Evidence:
    """The evidence of a model whose distances were measured."""
    path = folder / "distances.csv"
    lines = [f"{first},{n},{distance!r}\n" for (first, n), distance in distances.items()]
    path.write_text("first,n,distance\n" + "".join(lines))
    return Evidence(model_id, {"distances": path})


def test_similarity_is_the_argmin_and_ties_go_to_the_smaller_layer(tmp_path):
    distances = {
        (first, n): random.Random(f"{first} {n}").random() for n in range(1, 7) for first in range(7 - n)
    }
    evidence = measured(tmp_path, distances)
    for n in range(1, 6):
        best = min(d for (_, m), d in distances.items() if m == n)
        assert distances[similarity(n, 6, evidence).first, n] == best
    equal = dict.fromkeys(itertools.product(range(6), range(7)), 0.5)
    assert similarity(2, 6, measured(tmp_path, equal)) == LayerSet.contiguous(0, 2)


@pytest.mark.parametrize(
    "n_layers, n, removed",
    # The paper's wording for L layers is 1-based "(L-n) to (L-1)"; the very last layer always stays.
    [(32, 1, [30]), (32, 8, range(23, 31)), (80, 40, range(39, 79)), (12, 11, range(0, 11))],
)
def test_deepest_keeps_only_the_last_layer(n_layers, n, removed):
    block = deepest(n, n_layers)
    assert sorted(set(range(n_layers)) - set(block.kept(n_layers))) == list(removed)
    assert n_layers - 1 in block.kept(n_layers)


def test_choices_are_written_and_read_back(tmp_path):
    distances = {(first, n): 0.1 * n + abs(first - 3) / 100 for n in range(1, 7) for first in range(7 - n)}
    choices = choose(rules("similarity", "deepest"), [2, 4], 6, measured(tmp_path, distances))
    assert [(c.strategy, str(c.block)) for c in choices] == [
        ("similarity", "full"),
        ("similarity", "drop_3-4"),
        ("similarity", "drop_2-5"),
        ("deepest", "full"),
        ("deepest", "drop_3-4"),
        ("deepest", "drop_1-4"),
    ]
    write_choices(tmp_path / "blocks.csv", choices)
    read = read_choices(tmp_path / "blocks.csv")
    assert [(c.strategy, c.block) for c in read] == [(c.strategy, c.block) for c in choices]
    with open(tmp_path / "blocks.csv") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == "strategy,n,first,last,distance,block"
    assert ",".join(rows[0].values()) == "similarity,0,,,0,full"
    assert rows[1]["first"] == "3" and rows[1]["last"] == "4"
    assert float(rows[5]["distance"]) == pytest.approx(distances[1, 4])


def test_distances_are_read_by_first_and_n(tmp_path):
    path = tmp_path / "distances.csv"
    path.write_text("first,n,distance,stderr,samples\n0,1,0.25,0.01,9\n3,2,0.5,0.02,9\n")
    assert read_distances(path) == {(0, 1): 0.25, (3, 2): 0.5}
    assert Choice("similarity", LayerSet.contiguous(3, 2), 0.5).n == 2


def test_published_blocks_agree_with_the_numbers_in_the_text():
    llama = published_blocks("meta-llama/Llama-2-70b-hf")
    assert sorted(llama) == list(range(1, 65)) and all(n == block.n for n, block in llama.items())
    assert llama[1].first == 62 and llama[64].first == 10  # minima of the paper's figure 1c
    for model, n_layers in (("meta-llama/Llama-2-7b-hf", 32), ("mistralai/Mistral-7B-v0.1", 32)):
        assert all(len(b.kept(n_layers)) == n_layers - b.n for b in published_blocks(model).values())
    assert published_blocks("somebody/else") == {}


MISTRAL = "mistralai/Mistral-7B-v0.1"  # its blocks of 8 and 24 layers: 21 to 28, 3 to 26


def test_published_needs_no_distances_and_has_lines_only_where_the_authors_show_one():
    choices = choose(rules("published", "deepest"), [8, 26], 32, Evidence(MISTRAL))
    assert [(c.strategy, str(c.block)) for c in choices] == [
        ("published", "full"),
        ("published", "drop_21-28"),
        ("deepest", "full"),
        ("deepest", "drop_23-30"),
        ("deepest", "drop_5-30"),
    ]
    assert choices[0].distance == 0 and math.isnan(choices[1].distance)
    assert {c.strategy for c in choose(rules("published", "deepest"), [1, 2], 8, Evidence("other"))} == {
        "deepest"
    }


def test_the_distance_of_a_choice_is_that_over_its_block(tmp_path):
    distances = {(first, n): 0.01 * first + n for n in range(1, 33) for first in range(33 - n)}
    choices = choose(rules("published", "deepest"), [8], 32, measured(tmp_path, distances, MISTRAL))
    assert [c.distance for c in choices] == [0, distances[21, 8], 0, distances[23, 8]]


def test_before_the_evidence_is_there_its_blocks_are_pending():
    known = [Choice("similarity", LayerSet.contiguous(3, 2), 0.1)]
    choices = expected(rules("similarity", "deepest"), [2, 4], 8, "other", known)
    assert [(c.strategy, c.n, isinstance(c.block, PendingBlock)) for c in choices] == [
        *(("similarity", 0, False), ("similarity", 2, False), ("similarity", 4, True)),
        *(("deepest", 0, False), ("deepest", 2, False), ("deepest", 4, False)),
    ]
    assert choices[1].block == known[0].block and choices[2].block != LayerSet.contiguous(0, 4)


def test_a_model_of_unknown_size_may_have_blocks_beyond_the_guess():
    """Llama-2-70B taken for 32 layers: published blocks lie in 80, and 40 of 32 cannot go."""
    found = expected(rules("published", "deepest"), [2, 40], 32, "meta-llama/Llama-2-70b-hf")
    assert [(c.strategy, c.n, isinstance(c.block, PendingBlock)) for c in found] == [
        *(("published", 0, False), ("published", 2, True), ("deepest", 0, False), ("deepest", 2, False))
    ]


def test_the_program_runs_the_published_blocks_without_a_similarity_pass(tmp_path):
    source = {"kind": "hub", "id": MISTRAL, "revision": None}
    (tmp_path / "manifest.json").write_text(json.dumps({"n_layers": 32, "source": source}))

    def run(*options):
        command = [
            sys.executable,
            str(ROOT / "scripts/blocks.py"),
            "--checkpoint",
            ".",
            "--out",
            "blocks.csv",
        ]
        return subprocess.run([*command, *options], cwd=tmp_path, text=True, capture_output=True)

    assert run("--strategies", "published", "--remove", "8", "24").returncode == 0
    choices = read_choices(tmp_path / "blocks.csv")
    assert [c.block for c in choices] == [FULL, LayerSet.contiguous(21, 8), LayerSet.contiguous(3, 24)]
    assert math.isnan(choices[1].distance)
    failed = run("--strategies", "similarity", "--remove", "8")
    assert failed.returncode == 1 and failed.stderr == (
        "error: a strategy chooses by distances: give --evidence distances=FILE\n"
    )
