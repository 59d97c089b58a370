"""Where a curve breaks, which cuts are beaten by larger ones, and which is the best compromise."""

import pandas as pd
import pytest

from deeper_layers.reporting.tradeoff import Break, best_cuts, compromise, find_break, worse_with_fewer

N_LAYERS = 20


def cuts(curve: dict[int, float], stderr: float = 0.01, **other: dict[int, float]) -> pd.DataFrame:
    """A cut of each n that retains so much of ``score``, and of ``other`` metrics."""
    frame = pd.DataFrame({"n": list(curve), "n_layers": N_LAYERS})
    frame["block"], frame["fraction_removed"] = frame["n"].map("drop_1-{}".format), frame["n"] / N_LAYERS
    metrics = {"score": curve, **other}
    for name, values in metrics.items():
        frame[f"retained_{name}"], frame[f"retained_{name}_stderr"] = frame["n"].map(values), stderr
    clipped = frame[[f"retained_{name}" for name in metrics]].clip(0, 1)
    return frame.assign(average=clipped.mean(axis=1), average_stderr=stderr)


def at(frame):
    found = find_break(frame, "score")
    return found and (found.before, found.after)


CLIFF = {1: 0.99, 2: 0.98, 3: 0.95, 4: 0.94, 5: 0.4, 6: 0.38, 8: 0.3}


def test_a_break_is_where_most_is_lost_beyond_twice_the_equal_shares():
    assert find_break(cuts(CLIFF), "score") == Break(4, 5, pytest.approx(0.54), pytest.approx(0.01 * 2**0.5))
    assert at(cuts({n: 1 - n / N_LAYERS for n in range(1, 20)})) is None  # equal shares
    assert at(cuts({n: 1 - 1.9 * n / N_LAYERS for n in range(1, 10)})) is None
    assert at(cuts({1: 0.5, 2: 0.49, 3: 0.48})) == (0, 1)  # at once
    assert at(cuts({2: 0.98, 6: 0.7})) is None and at(cuts({2: 0.98, 6: 0.4})) == (2, 6)  # a coarse grid


def test_a_break_over_several_steps_is_one_though_no_step_is_significant():
    slide = {1: 1, 2: 1, 3: 0.85, 4: 0.7, 5: 0.55, 6: 0.4, 7: 0.25, 8: 0.25}
    assert at(cuts(slide, stderr=0.03)) == (2, 7)
    assert at(cuts({1: 1, 2: 0.85}, stderr=0.03)) is None


def test_noise_is_no_break():
    assert at(cuts({1: 0.99, 2: 0.8, 3: 0.78}, stderr=0.01)) == (1, 2)
    assert at(cuts({1: 0.99, 2: 0.8, 3: 0.78}, stderr=0.05)) is None


def test_a_bad_choice_between_good_ones_is_no_break_but_is_named():
    dip = cuts({**CLIFF, 2: 0.2})
    assert at(dip) == (4, 5)
    [(worse, better, metrics)] = worse_with_fewer(dip, ["score"])
    assert (worse["n"], better["n"], metrics) == (2, 3, ["score"])
    assert worse_with_fewer(cuts({**CLIFF, 2: 0.92}), ["score"]) == []  # not significant
    other = {n: 0.9 - 0.2 * (n > 2) for n in CLIFF}
    assert worse_with_fewer(cuts({**CLIFF, 2: 0.5}, other=other), ["score", "other"]) == []  # better in that


def test_what_is_worse_than_nothing_is_nothing():
    deep = cuts({1: 1, 2: 0.1, 3: -3, 4: -1})
    assert at(deep) == (1, 2) and worse_with_fewer(deep, ["score"]) == []


def test_of_each_n_the_cut_of_the_best_average_is_shown():
    frame = pd.concat([cuts({2: 0.5, 1: 0.9}), cuts({2: 0.6, 1: 0.9}).assign(block="other")])
    frame = frame.reset_index(drop=True)
    frame.loc[len(frame)] = {"n": 3, "block": "unmeasured"}
    assert best_cuts(frame)["block"].tolist() == ["drop_1-1", "other", "unmeasured"]


def test_the_best_compromise_is_farthest_above_equal_shares():
    assert compromise(cuts(CLIFF))["n"] == 4
    assert compromise(cuts({1: 0.9, 2: 0.8, 3: 0.7}))["n"] == 1  # least below
    assert compromise(cuts({1: 0.94, 19: 0.06}))["n"] == 1  # what retains nothing is no compromise
    assert compromise(cuts({1: 0.3, 2: 0.4, 3: 0.2}))["n"] == 2
    assert compromise(cuts({1: float("nan")}))["n"] == 1  # a loss that is no number
