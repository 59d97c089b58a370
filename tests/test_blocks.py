"""Blocks and strategies against published facts and plain definitions."""

import csv
import itertools
import random

import pytest

from deeper_layers.blocks import (
    FULL,
    Block,
    Choice,
    choose,
    deepest,
    read_choices,
    read_distances,
    similarity,
    write_choices,
)
from deeper_layers.errors import UserError


def test_names_say_which_layers_are_gone_both_ends_inclusive():
    assert str(Block(21, 8)) == "drop_21-28" and Block.parse("drop_21-28") == Block(21, 8)
    assert str(FULL) == "full" and Block.parse("full") == FULL and Block(5, 0) == FULL
    assert Block(2, 3).kept(7) == [0, 1, 5, 6]
    for bad in ("drop_8-2", "drop_3", "21-28", "drop_-1-2", ""):
        with pytest.raises(UserError, match="drop_FIRST-LAST"):
            Block.parse(bad)
    for block in (Block(0, 7), Block(5, 3)):
        with pytest.raises(UserError, match="at least one must stay"):
            block.kept(7)


def test_similarity_is_the_argmin_and_ties_go_to_the_smaller_layer():
    distances = {
        (first, n): random.Random(f"{first} {n}").random() for n in range(1, 7) for first in range(7 - n)
    }
    for n in range(1, 6):
        best = min(d for (_, m), d in distances.items() if m == n)
        assert distances[similarity(n, 6, distances).first, n] == best
    assert similarity(2, 6, dict.fromkeys(itertools.product(range(6), range(7)), 0.5)) == Block(0, 2)


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
    choices = choose(["similarity", "deepest"], [2, 4], 6, distances)
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
    assert rows[0] == {"strategy": "similarity", "n": "0", "first": "", "last": "", "distance": "0"}
    assert rows[1]["first"] == "3" and rows[1]["last"] == "4"
    assert float(rows[5]["distance"]) == pytest.approx(distances[1, 4])


def test_distances_are_read_by_first_and_n(tmp_path):
    path = tmp_path / "distances.csv"
    path.write_text("first,n,distance,stderr,samples\n0,1,0.25,0.01,9\n3,2,0.5,0.02,9\n")
    assert read_distances(path) == {(0, 1): 0.25, (3, 2): 0.5}
    assert Choice("similarity", Block(3, 2), 0.5).n == 2
