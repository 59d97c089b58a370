"""What the figures draw, read back from their artists and compared with the numbers they were given."""

import itertools
import shutil
import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import figure as program
from deeper_layers.errors import UserError
from deeper_layers.reporting.figures.choice import choice_quality
from deeper_layers.reporting.figures.cost import front
from deeper_layers.reporting.figures.distances import rescaled
from deeper_layers.reporting.figures.draw import draw, save
from deeper_layers.reporting.figures.panels import COLUMN, FRACTION, LAYERS, PAGE
from deeper_layers.reporting.figures.registry import DISTANCES, FIGURES, MODEL, SPEED, STUDY, TABLE, available
from deeper_layers.reporting.figures.select import Selection
from deeper_layers.reporting.figures.style import model_colour
from deeper_layers.reporting.tradeoff import best_cuts, find_break, parts
from deeper_layers.study import code_hash

SCRIPT = Path(__file__).parents[1] / "scripts" / "figure.py"
N_LAYERS = 6


@pytest.fixture
def distances():
    """Random distances of a model of 6 layers, with a tie at n = 2 between l = 1 and l = 3."""
    random = np.random.default_rng(0)
    cells = [(first, n) for n in range(1, N_LAYERS + 1) for first in range(N_LAYERS - n + 1)]
    frame = pd.DataFrame(cells, columns=["first", "n"])
    frame["distance"], frame["stderr"], frame["samples"] = random.uniform(0.2, 0.5, len(frame)), 0.01, 50
    frame.loc[(frame.n == 2) & frame["first"].isin([1, 3]), "distance"] = 0.1
    return {"tiny": frame}


@pytest.fixture
def table():
    """Two models, two strategies that agree at n = 1, two recipes of which the first has a control."""
    random = np.random.default_rng(1)
    rows = []
    for model, strategy, n, treatment in itertools.product(
        ["a", "b"], ["similarity", "deepest"], range(N_LAYERS), ["pruned", "healed", "healed_seed1"]
    ):
        if n == 0 and treatment == "healed_seed1":
            continue
        first = 4 if n == 1 else 0 if strategy == "similarity" else N_LAYERS - 1 - n
        block = f"drop_{first}-{first + n - 1}" if n else "full"
        rows.append(
            {
                **{"model": model, "strategy": strategy, "n": n, "block": block, "treatment": treatment},
                **{"n_layers": N_LAYERS, "layers": N_LAYERS - n, "fraction_removed": n / N_LAYERS},
                **{"parameters": 100 - n, "bytes": 400 - 4 * n, "distance": 0.1 * n + 0.01 * first},
                **{"memory_bytes": 500 - 40 * n, "prefill": 1000 + 90 * n, "decode": 100 / (1 - 0.1 * n)},
                **{"knowledge": random.uniform(0.3, 0.9), "knowledge_stderr": 0.02},
                **{"guess": 0.51, "guess_stderr": 0.02},
                **{"loss": random.uniform(1, 4), "loss_stderr": 0.1},
            }
        )
    table = pd.DataFrame(rows)
    for column in ("knowledge", "loss"):  # one block, one number
        table[column] = table.groupby(["model", "block", "treatment"])[column].transform("first")
    table.loc[table.block.eq("full") & table.treatment.eq("pruned"), ["knowledge", "loss"]] = [0.85, 1.0]
    table["normalised_loss"], table["normalised_loss_stderr"] = table.loss / 5, table.loss_stderr / 5
    in_paper = table.model.eq("a") & table.strategy.eq("similarity") & table.n.between(1, 3)
    table["loss_published"] = (table["loss"] + 0.3 - 0.1 * table["n"]).where(in_paper)
    table["loss_difference"] = table["loss"] - table["loss_published"]
    return table


@pytest.fixture
def levels(table):
    rows = [("knowledge", "chance", 0.25), ("guess", "chance", 0.5), ("guess", "majority", 0.6)]
    rows += [("loss", "chance", 5.0), ("normalised_loss", "chance", 1.0)]
    rows = [(model, *row) for model in table.model.unique() for row in rows]
    return pd.DataFrame(rows, columns=["model", "metric", "level", "value"])


@pytest.fixture
def speed(table):
    """The speed.csv of model a: a decoding step takes 10 ms less a tenth of that for each layer."""
    rows = table[(table.model == "a") & (table.treatment == "pruned") & (table.strategy == "similarity")]
    ends = {
        f"{name}_{end}": rows[name] * by for name in ("prefill", "decode") for end, by in QUARTILES.items()
    }
    return rows.assign(**ends)


QUARTILES = {"low": 0.9, "high": 1.1}


def drawn(name, table, levels=None, **options):
    """A figure of a table."""
    return draw(name, Selection.of(table, levels, options))


def select(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    return table.sort_values("n")


def lines(ax, **properties):
    """The data of the lines that have all these properties, as [points, 2] arrays."""
    return [
        np.array(line.get_xydata())
        for line in ax.get_lines()
        if all(getattr(line, f"get_{name}")() == value for name, value in properties.items())
    ]


def heights(ax, linestyle):
    """Where horizontal lines of a style lie."""
    return sorted({float(line[0, 1]) for line in lines(ax, linestyle=linestyle) if line[0, 1] == line[-1, 1]})


def points(rows, metric):
    return np.column_stack([100 * rows.fraction_removed, rows[metric]])


def panel(figure, ylabel):
    return next(ax for ax in figure.axes if ax.get_ylabel() == ylabel)


def bars(ax):
    """(left, width) of the horizontal bars that are as long as the block they show, by their height n."""
    return {round(p.get_y() + p.get_height() / 2): (p.get_x(), p.get_width()) for p in ax.patches}


# Distances


def test_distance_curves_show_every_block_that_leaves_a_layer(distances):
    ax = draw("distance-curves", distances).axes[0]
    frame = distances["tiny"]
    *curves, trace = lines(ax)
    assert len(curves) == N_LAYERS - 1
    for n, curve in enumerate(curves, 1):
        np.testing.assert_array_equal(curve, select(frame, n=n).sort_values("first")[["first", "distance"]])
    by_n = {n: sorted(zip(rows.distance, rows["first"], strict=True)) for n, rows in frame.groupby("n")}
    best = [by_n[n][0] for n in range(1, N_LAYERS)]
    np.testing.assert_array_equal(trace, [(first, d) for d, first in best])
    assert tuple(trace[1]) == (1, 0.1)  # the tie goes to the smaller l
    bands = [c.get_paths()[0].get_extents() for c in ax.collections]
    assert [b.y0 for b in bands] == pytest.approx([c[:, 1].min() - 0.01 for c in curves])


def test_distance_map_rescales_each_row(distances):
    ax, bar = draw("distance-map", distances).axes
    mesh = ax.collections[0].get_array()
    frame = distances["tiny"]
    assert mesh.shape == (N_LAYERS - 1, N_LAYERS)
    for n in range(1, N_LAYERS):
        d = select(frame, n=n).sort_values("first").distance.to_numpy()
        np.testing.assert_allclose(mesh[n - 1, : len(d)], (d - d.min()) / (d.max() - d.min()), atol=1e-12)
        assert mesh.mask[n - 1].tolist() == [False] * len(d) + [True] * (N_LAYERS - len(d))
    assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (0, 1)
    assert ax.collections[0].get_cmap().name == "viridis_r"
    dots = lines(ax)[0]
    assert [tuple(dot) for dot in dots[:2]] == [(select(frame, n=1).distance.idxmin(), 1), (1, 2)]


def test_layer_0_does_not_take_the_scale_of_the_distance_map(distances):
    frame = distances["tiny"]
    frame.loc[frame["first"] == 0, "distance"] = 50.0
    cells = rescaled(frame)
    assert (cells[0].dropna() > 1).sum() >= 3  # where a row has others to tell apart
    others = cells.loc[1, 1:]
    assert others.min() == 0 and 0.3 < others.max() <= 1


# Scores


def test_healing_draws_the_table(table, levels):
    figure = drawn("healing", table, levels, models=[["a"]])
    assert [ax.get_ylabel() for ax in figure.axes] == ["knowledge", "guess", "held-out loss (nats)"]
    rows = select(table, model="a", strategy="similarity")
    ax = figure.axes[0]
    [unhealed], [healed] = lines(ax, marker="*"), lines(ax, marker="o")
    np.testing.assert_allclose(unhealed, points(select(rows, treatment="pruned"), "knowledge"))
    np.testing.assert_allclose(healed, points(select(rows, treatment="healed").query("n > 0"), "knowledge"))
    [control] = lines(ax, marker="D")
    np.testing.assert_allclose(control, points(select(rows, treatment="healed", n=0), "knowledge"))
    assert (lines(ax, linestyle=":", marker="*"), lines(ax, linestyle="-", marker="o")) != ([], [])
    band = ax.collections[0].get_paths()[0].get_extents()
    assert band.y1 == pytest.approx(unhealed[:, 1].max() + 0.02)


def test_levels_are_drawn_at_their_height_and_named(table, levels):
    figure = drawn("healing", table, levels, models=[["a"]])
    assert heights(figure.axes[0], "--") == [0.25]
    assert heights(figure.axes[1], "--") == [0.5] and heights(figure.axes[1], "-.") == [0.6]
    assert heights(figure.axes[2], "--") == []  # chance, 5 nats, is far above the losses: at the edge
    assert [text.get_text() for text in figure.axes[2].texts] == ["chance 5 \u2191"]
    assert figure.axes[2].get_ylim()[1] < table[table.model == "a"].loss.max() + 0.5
    unpruned = [line for line in lines(figure.axes[2], linestyle="-", marker="None") if len(line) == 2]
    assert [line[0, 1] for line in unpruned] == [1.0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    expected = [
        "un-healed",
        "healed",
        "healed, not cut",
        "± 1 standard error",
        "unpruned",
        "chance",
        "majority",
    ]
    assert names == expected


@pytest.mark.parametrize("families, shape", [([["a", "b"]], (3, 1)), ([["a"], ["b"]], (3, 2))])
def test_families_share_a_panel_and_models_keep_their_colour(table, levels, families, shape):
    figure = drawn("healing", table, levels, models=families)
    assert len(figure.axes) == shape[0] * shape[1]
    colours = {line.get_color() for ax in figure.axes for line in ax.get_lines() if line.get_marker() == "o"}
    assert colours == {model_colour(table, "a"), model_colour(table, "b")}
    alone = drawn("healing", table, levels, models=[["b"]])
    assert {line.get_color() for line in alone.axes[0].get_lines() if line.get_marker() == "o"} < colours


def test_strategies_un_healed_beside_healed(table, levels):
    figure = drawn("strategies", table, levels, models=[["a"]], metrics=["knowledge", "loss"])
    left, right = figure.axes[:2]
    assert [left.get_title(), right.get_title()] == ["un-healed", "healed"]
    assert left.get_ylim() == right.get_ylim()
    for ax, treatment, marker in ((left, "pruned", "*"), (right, "healed", "o")):
        for strategy, face in (("similarity", "#0072B2"), ("deepest", "white")):
            rows = select(table, model="a", strategy=strategy, treatment=treatment)
            [curve] = lines(ax, marker=marker, markerfacecolor=face)
            np.testing.assert_allclose(
                curve, points(rows if marker == "*" else rows[rows.n > 0], "knowledge")
            )


def test_chance_within_the_range_of_the_losses_is_a_line(table, levels):
    table.loc[table.n == 3, "loss"] = 5.5
    ax = drawn("healing", table, levels, models=[["a"]]).axes[2]
    assert heights(ax, "--") == [5.0] and not ax.texts


def test_the_axis_tells_n_unless_models_differ_in_depth(table, levels):
    def ticks(ax):
        FigureCanvasAgg(ax.figure).draw()
        return [text.get_text() for text in ax.get_xticklabels() if on_axis(ax, text)]

    ax = drawn("healing", table, levels, models=[["a"]]).axes[0]
    assert ticks(ax) == ["0\n0%", "2\n33%", "4\n67%"]
    assert ax.get_xlabel() == LAYERS
    table.loc[table.model == "b", "n_layers"] = 24
    ax = drawn("healing", table, levels, models=[["a", "b"]]).axes[0]
    assert ticks(ax) == ["0", "20", "40", "60", "80"] and ax.get_xlabel() == FRACTION


def test_loss_of_all_models_with_chance_at_one(table, levels):
    left, right = drawn("loss", table, levels).axes
    for ax, treatment, marker in ((left, "pruned", "*"), (right, "healed", "o")):
        assert heights(ax, "--") == [] and [text.get_text() for text in ax.texts] == ["chance 1 \u2191"]
        for model, curve in zip("ab", lines(ax, marker=marker), strict=True):
            rows = select(table, model=model, strategy="similarity", treatment=treatment)
            rows = rows if marker == "*" else rows[rows.n > 0]
            np.testing.assert_allclose(curve[:, 1], rows.loss / 5)


def test_recipes_have_a_curve_each(table, levels):
    axes = drawn("recipes", table, levels, models=[["a"]]).axes
    assert [ax.get_title() for ax in axes] == ["similarity"] * 3 + ["deepest"] * 3
    assert len(drawn("recipes", table, levels, models=[["a"]], strategy="deepest").axes) == 3
    ax = axes[0]
    first, second = lines(ax, marker="o")
    for curve, recipe in ((first, "healed"), (second, "healed_seed1")):
        rows = select(table, model="a", strategy="similarity", treatment=recipe).query("n > 0")
        np.testing.assert_allclose(curve, points(rows, "knowledge"))


def test_retained_is_the_way_from_chance_or_from_twice_the_loss_to_the_unpruned_model(table, levels):
    figure = drawn("retained", table, levels, models=[["a"]])
    rows = select(table, model="a", strategy="similarity", treatment="pruned")
    knowledge, loss = lines(figure.axes[0], linestyle=":")  # guess is not better than chance: left out
    np.testing.assert_allclose(knowledge[:, 1], 100 * (rows.knowledge - 0.25) / (0.85 - 0.25))
    np.testing.assert_allclose(loss[:, 1], 100 * (2 - rows.loss))
    assert knowledge[0, 1] == pytest.approx(100) and loss[0, 1] == pytest.approx(100)
    band = figure.axes[0].collections[1].get_paths()[0].get_extents()
    assert band.y1 == pytest.approx(loss[:, 1].max() + 100 * 0.1)


def test_the_trade_off_is_that_of_the_best_cut_of_each_n(table, levels):
    left, right, map_left, _ = drawn("trade-off", table, levels, models=[["a"]]).axes
    rows = select(table, model="a", treatment="healed").query("n > 0")
    kept = pd.DataFrame({"knowledge": (rows.knowledge - 0.25) / 0.6, "loss": 2 - rows.loss}).clip(0, 1)
    best = rows.loc[kept.mean(axis=1).groupby(rows.n).idxmax()]
    assert set(best.strategy) == {"similarity", "deepest"}
    knowledge, loss = (lines(right, marker=marker)[0] for marker in "o^")  # guess is not better than chance
    uncut = select(table, model="a", treatment="healed", n=0).iloc[0]
    control = [line[0, 1] for line in lines(right, marker="D")]
    assert control == pytest.approx([100 * (uncut.knowledge - 0.25) / 0.6, 100 * (2 - uncut.loss)])
    assert not lines(left, marker="D")
    np.testing.assert_allclose(knowledge[1:, 1], 100 * ((best.knowledge - 0.25) / 0.6).clip(lower=0))
    np.testing.assert_allclose(loss[:, 1], [100, *(100 * (2 - best.loss).clip(lower=0))])
    assert {99, 95, 90, 80} <= set(heights(right, "-"))
    figure = left.figure
    assert figure.get_supxlabel() == "Not shown, see the summary: guess"
    gone = [bar.get_height() for bar in map_left.patches if bar.get_height() < N_LAYERS]
    assert gone == [1, 2, 3, 4, 5]
    assert len(lines(right, alpha=0.25)) == sum(
        find_break(best_cuts(parts(rows_of(table, "a", "healed"), levels, "a")), metric) is not None
        for metric in ("knowledge", "loss")
    )


def rows_of(table, model, treatment):
    """The cuts of a model and a treatment, and the unpruned model."""
    unpruned = table.n.eq(0) & table.treatment.eq("pruned")
    return table[table.model.eq(model) & (unpruned | table.treatment.eq(treatment) & table.n.gt(0))]


def test_published_lays_ours_on_the_papers(table, levels):
    figure = drawn("published", table, levels)
    (ax,) = figure.axes  # model b and the other metrics are not in the paper
    assert ax.get_title() == "a" and ax.get_ylabel() == "held-out loss (nats)"
    rows = select(table, model="a", strategy="similarity")
    for treatment, marker in (("pruned", "*"), ("healed", "o")):
        ours = select(rows, treatment=treatment).query("n > 0 or treatment == 'pruned'")
        theirs = ours.query("1 <= n <= 3")
        np.testing.assert_allclose(lines(ax, marker=marker)[0], points(ours, "loss"))
        assert any(
            len(line) == 3 and np.allclose(line, points(theirs, "loss_published"))
            for line in lines(ax, color="#c4c4c4")
        )
    assert [text.get_text() for text in ax.texts] == ["chance 5 \u2191"] and heights(ax, "-") == [1.0]
    with pytest.raises(UserError, match="no published value of the strategy deepest beside one of ours"):
        drawn("published", table, levels, strategy="deepest")


def test_layer_map_shows_the_removed_layers(table):
    for ax in drawn("layer-map", table, models=[["a"]]).axes:
        for n, (left, width) in bars(ax).items():
            first = 4 if n == 1 else 0 if ax.get_title() == "similarity" else N_LAYERS - 1 - n
            assert (left, width) == (first - 0.5, n)
        assert ax.get_yticks().tolist() == [1, 2, 3, 4, 5]
    for ax in drawn("layer-map", table[table.n != 2], models=[["a"]]).axes:
        assert ax.get_yticks().tolist() == [1, 3, 4, 5]  # at bars only


def test_layer_map_shows_every_run_of_removed_layers(table):
    table.loc[(table.strategy == "similarity") & (table.n == 3), "block"] = "drop_0_3-4"
    ax = drawn("layer-map", table, models=[["a"]]).axes[0]
    removed = ax.containers[1].patches
    shown = [(p.get_x(), p.get_width()) for p in removed if round(p.get_y() + p.get_height() / 2) == 3]
    assert shown == [(-0.5, 1), (2.5, 2)]


def test_choice_quality():
    rows = pd.DataFrame(
        [  # the closer block is better at n = 2 and 4, worse at n = 3; n = 1 has a single block
            (1, "p", 0.1, 0.0),
            (1, "p", 0.1, 0.0),
            (2, "q", 0.2, 0.5),
            (2, "r", 0.3, 0.6),
            (3, "s", 0.4, 0.9),
            (3, "t", 0.5, 0.8),
            (4, "u", 0.6, 1.0),
            (4, "v", 0.7, 1.1),
        ],
        columns=["n", "block", "distance", "lost"],
    )
    rank, better, rivals = choice_quality(rows)
    assert (better, rivals) == (2, 3)
    assert rank == pytest.approx(1 - 6 * 2 / (7 * 48))  # Spearman's formula: two of 7 ranks differ, by one


def test_distance_loss_shows_the_loss_added(table):
    figure = drawn("distance-loss", table, models=[["a"]])
    rows = select(table, model="a", strategy="similarity", treatment="pruned").query("n > 0")
    dots = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(dots, np.column_stack([rows.distance, rows.loss - 1.0]))


def test_distance_loss_of_a_model_that_no_recipe_heals_shows_the_unhealed_cuts(table):
    table = table[(table.model == "b") | (table.treatment == "pruned")]
    panels = drawn("distance-loss", table, models=[["a"]]).axes[:-1]  # the last is the colour bar
    assert [ax.get_title() for ax in panels] == ["un-healed"]


def test_prompts_are_curves_of_one_task(table, levels):
    names = ["mmlu_1_shot_knowledge", "mmlu_order_2_knowledge"]
    for i, name in enumerate(names):
        table[name], table[f"{name}_stderr"] = table["knowledge"] - 0.1 * i, 0.02
    left, right = drawn("prompts", table, levels, models=[["a"]], metrics=names).axes
    assert left.get_ylabel() == "knowledge" and left.get_title() == "un-healed"
    rows = select(table, model="a", strategy="similarity", treatment="pruned")
    for curve, name in zip(lines(left, marker="*"), names, strict=True):
        np.testing.assert_allclose(curve, points(rows, name))
    found = [text.get_text() for text in left.figure.legends[0].get_texts()]
    assert found[:2] == ["mmlu 1 shot", "mmlu order 2"]


# What a cut saves


def test_speed_is_drawn_as_time_and_in_per_cent_of_the_unpruned(speed):
    times, sizes = draw("speed", speed).axes
    x = 100 * speed.fraction_removed
    law = np.array([[0, 100], [100, 0]])
    for ax in (times, sizes):
        np.testing.assert_array_equal(lines(ax, linestyle="--"), [law])
    prefill, decode = lines(times, linestyle="-")
    np.testing.assert_allclose(decode, np.column_stack([x, 100 - 10 * speed.n]))
    np.testing.assert_allclose(prefill[:, 1], 100 * 1000 / speed.prefill)
    band = times.collections[1].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((50 / 1.1, 100 / 0.9))
    memory, disk = lines(sizes, linestyle="-")
    np.testing.assert_allclose(memory[:, 1], 100 * (500 - 40 * speed.n) / 500)
    np.testing.assert_allclose(disk[:, 1], 100 - speed.n)


def test_the_front_has_what_nothing_else_beats(table, levels):
    points = pd.DataFrame({"x": [1, 2, 2, 3, 3], "y": [5, 4, 3, 1, 1]}, index=list("abcde"))
    assert points[front(points.x, points.y)].index.tolist() == ["a", "b", "d", "e"]
    figure = drawn("pareto", table[table.model == "a"], levels, metrics=["loss"])
    faster, memory = figure.axes
    rows = table[(table.model == "a") & table.treatment.isin(["pruned", "healed"])]
    rows = rows[(rows.n > 0) | (rows.treatment == "pruned")]
    [line] = lines(faster, linestyle=":")
    assert line[0, 1] == rows.loss.min() and line[-1, 0] == pytest.approx(1 / (1 - 0.1 * rows.n.max()))
    for x, y in line:  # no cut is faster and has less loss
        assert not ((1 / (1 - 0.1 * rows.n) > x + 1e-9) & (rows.loss < y - 1e-9)).any()
    assert {text.get_text() for text in faster.texts} <= {str(n) for n in range(N_LAYERS)}
    assert memory.get_xlim()[0] > memory.get_xlim()[1]  # less memory is to the right
    with pytest.raises(UserError, match="study.speed: true"):
        drawn("pareto", table[table.model == "a"].drop(columns="decode"), levels)


# All figures


def draw_all(table, levels, distances, speed):
    data = {DISTANCES: distances, SPEED: speed, TABLE: Selection.of(table[table.model == "a"], levels)}
    for name, entry in FIGURES.items():
        yield name, draw(name, data[entry.reads])


def test_without_healing_the_un_healed_curves_remain(table, levels, distances, speed):
    bare = table[table.treatment == "pruned"]
    for name, figure in draw_all(bare, levels, distances, speed):
        if FIGURES[name].reads == TABLE and name != "distance-loss":
            curves = [line for ax in figure.axes for line in ax.get_lines() if line.get_marker() != "None"]
            assert {line.get_linestyle() for line in curves} <= {":", "None"}, name


def test_a_model_that_does_nothing_better_than_chance_is_drawn_all_the_same(table, levels, distances, speed):
    table["knowledge"], table["loss"] = 0.25, 5.5
    table["normalised_loss"] = 1.1
    figures = dict(draw_all(table, levels, distances, speed))
    assert {ax.get_ylabel() for ax in figures["pareto"].axes} > {"knowledge", "held-out loss (nats)"}
    assert figures.keys() == FIGURES.keys()


def test_files_are_the_same_byte_for_byte(table, levels, distances, tmp_path):
    for ending in ("svg", "pdf", "png"):
        one, two = (tmp_path / f"{i}.{ending}" for i in (1, 2))
        save(drawn("healing", table, levels, models=[["a"]]), one)
        save(drawn("healing", table, levels, models=[["a"]]), two)
        assert one.read_bytes() == two.read_bytes() and one.stat().st_size > 5000
    head = (tmp_path / "1.svg").read_text()[:1000]
    assert 'width="745.2pt"' in head and 'viewBox="0 0 496.8 ' in head  # a page, half as large again
    with pytest.raises(UserError, match="svg"):
        save(drawn("layer-map", table, models=[["a"]]), tmp_path / "figure.gif")


def test_nothing_is_clipped_or_overlaps_at_the_width_of_a_column(table, levels, distances, speed):
    """Every text lies inside the figure, and no two texts of it overlap."""
    for name, figure in draw_all(table, levels, distances, speed):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        page, renderer = figure.bbox, canvas.get_renderer()
        texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)]
        texts += [t for legend in figure.legends for t in legend.get_texts()]
        texts += [
            t for ax in figure.axes for t in ax.get_xticklabels() + ax.get_yticklabels() if on_axis(ax, t)
        ]
        boxes = [
            (t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_visible() and t.get_text()
        ]
        assert figure.get_figwidth() in (COLUMN, PAGE)
        for text, box in boxes:
            assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, f"{name}: {text!r} is cut off"
        for (one, box), (other, second) in itertools.combinations(boxes, 2):
            assert not (box.shrunk(0.9, 0.9).overlaps(second)), f"{name}: {one!r} and {other!r} overlap"


def on_axis(ax, text):
    """Tick labels outside the limits exist but are not drawn."""
    (x0, x1), (y0, y1) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    x, y = text.get_position()
    return text.get_visible() and (x0 <= x <= x1 if y == 0 else y0 <= y <= y1)


def test_what_the_table_lacks_is_said(table, levels):
    for wrong, words in (
        ({"models": [["c"]]}, "it has a, b"),
        ({"strategy": "random"}, "it has similarity, deepest"),
        ({"recipe": "cured"}, "it has pruned, healed, healed_seed1"),
        ({"metrics": ["mmlu"]}, "it has knowledge, guess, loss, normalised_loss"),
    ):
        with pytest.raises(UserError, match=words):
            drawn("healing", table, levels, **wrong)
    with pytest.raises(UserError, match="--models one of a, b"):
        drawn("strategies", table, levels)
    with pytest.raises(UserError, match="loss suite"):
        drawn("loss", table[["model", "strategy", "n", "treatment", "knowledge", "knowledge_stderr"]], levels)


def test_the_program(table, levels, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    levels.to_csv(tmp_path / "levels.csv", index=False)
    data = ["--table", tmp_path / "table.csv", "--levels", tmp_path / "levels.csv", "--out", tmp_path / "f"]

    def figure(*words):
        return subprocess.run([sys.executable, SCRIPT, *words, *data], capture_output=True, text=True)

    done = figure("healing", "--models", "a,b", "--metrics", "loss", "--formats", "svg", "pdf", "png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    done = figure("layer-map", "--recipe", "healed")
    assert (done.returncode, done.stderr) == (1, "error: the figure layer-map has no option --recipe\n")


def test_what_a_figure_is_given(table, levels, distances, tmp_path):
    options = dict.fromkeys(["models", "metrics", "strategy", "recipe", "recipes", "distances", "speed"])
    options |= {"table": tmp_path / "table.csv", "levels": tmp_path / "levels.csv"}
    path = tmp_path / "tiny" / "distances.csv"
    path.parent.mkdir()
    distances["tiny"].to_csv(path, index=False)
    given = program.read(Namespace(name="distance-map", **options | {"distances": [path]}))
    pd.testing.assert_frame_equal(given["tiny"], distances["tiny"])
    with pytest.raises(UserError, match="--distances"):
        program.read(Namespace(name="distance-map", **options))
    with pytest.raises(UserError, match="--speed"):
        program.read(Namespace(name="speed", **options))
    with pytest.raises(UserError, match=r"table.csv is missing.*table.py"):
        program.read(Namespace(name="healing", **options))
    table.to_csv(options["table"], index=False)
    levels.to_csv(options["levels"], index=False)
    given = program.read(Namespace(name="healing", **options | {"models": ["a,b", "a"]}))
    assert given.families == (("a", "b"), ("a",))


# What is shown of a table


def test_what_is_not_asked_for_is_what_the_table_has(table, levels):
    shown = Selection.of(table, levels)
    assert shown.families == (("a",), ("b",)) and shown.metrics == ("knowledge", "guess", "loss")
    assert shown.strategies == ("similarity", "deepest") and shown.recipes == ("healed", "healed_seed1")
    assert shown.strategy == "similarity" and shown.treatments == ["pruned", "healed"]
    assert shown.above_chance("a") == ["knowledge", "loss"]
    asked = {"metrics": ["guess"], "strategy": "deepest", "recipe": "healed_seed1", "models": [["b"]]}
    shown = Selection.of(table, levels, asked)
    assert (shown.models, shown.metrics, shown.strategies) == (["b"], ("guess",), ("deepest",))
    assert shown.treatments == ["pruned", "healed_seed1"] and shown.above_chance("b") == ["guess"]


def test_what_is_not_asked_for_of_one_model_is_what_that_model_has(table, levels):
    table = table[(table.model == "a") | (table.treatment == "pruned") & (table.strategy == "deepest")]
    shown = Selection.of(table, levels, {"metrics": ["loss"]}).of_model("b")
    assert (shown.model, shown.strategies, shown.treatments) == ("b", ("deepest",), ["pruned"])
    assert shown.metrics == ("loss",)
    with pytest.raises(UserError, match="it has pruned"):
        Selection.of(table, levels, {"recipes": ["healed"]}).of_model("b")


def test_a_model_has_its_colour_in_every_figure(table, levels):
    for name in ("healing", "pareto", "published", "loss"):
        table["loss_published"] = table["loss"]
        figure = drawn(name, table, levels, models=[["b"]])
        points = [line for line in figure.axes[0].get_lines() if line.get_marker() == "*"]
        assert {line.get_color() for line in points} == {model_colour(table, "b")}, name


# The registry


def test_the_registry_needs_no_library():
    forbidden = "import sys; sys.modules.update(dict.fromkeys(['torch', 'pandas', 'numpy', 'matplotlib']))"
    read = "from deeper_layers.reporting.figures.registry import FIGURES; print(*FIGURES)"
    done = subprocess.run(
        [sys.executable, "-c", f"{forbidden}; {read}"], capture_output=True, text=True, cwd=SCRIPT.parent
    )
    assert done.stdout.split() == list(FIGURES), done.stderr


def test_every_figure_of_the_registry_is_complete():
    for name, entry in FIGURES.items():
        module = import_module(f"deeper_layers.reporting.figures.{entry.module}")
        assert getattr(module, name.replace("-", "_")).__doc__, name
        assert set(entry.options) <= set(program.OPTIONS), name
        assert bool(entry.options) == (entry.reads == TABLE), name
        assert entry.needs <= EVERYTHING | {"no recipes"} and entry.scopes and len(entry.caption) > 50, name


EVERYTHING = {
    *("cuts", "scores", "loss", "recipes", "several recipes", "distances", "speed", "prompts", "published")
}


def test_a_study_has_the_figures_that_show_something():
    assert available(MODEL, DISTANCES, {"distances"}) == ["distance-curves", "distance-map"]
    assert available(MODEL, SPEED, {"distances"}) == available(STUDY, SPEED, EVERYTHING) == []
    assert available(MODEL, SPEED, {"speed"}) == ["speed"]
    assert available(MODEL, TABLE, {"cuts"}) == ["layer-map"]
    unhealed = {"cuts", "no recipes", "scores", "loss", "distances"}
    assert available(MODEL, TABLE, unhealed) == [
        *("layer-map", "quality", "retained", "trade-off", "strategies", "distance-loss"),
    ]
    assert available(STUDY, TABLE, unhealed) == ["quality", "loss"]
    healed = {"cuts", "recipes", "scores"}
    assert available(MODEL, TABLE, healed) == [
        *("layer-map", "healing", "retained", "trade-off", "strategies"),
    ]
    assert available(STUDY, TABLE, healed) == ["healing"]
    assert available(STUDY, TABLE, EVERYTHING) == ["published", "healing", "loss"]
    shown = itertools.product((MODEL, STUDY), (DISTANCES, SPEED, TABLE))
    everything = EVERYTHING | {"no recipes"}
    assert {name for each in shown for name in available(*each, everything)} == FIGURES.keys()


def test_a_changed_figure_is_drawn_again_and_a_changed_caption_draws_nothing(tmp_path, monkeypatch):
    for name in ("scripts", "resources"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SCRIPT.parents[1] / name, tmp_path / name, ignore=ignored)
    monkeypatch.setattr(code_hash, "SCRIPTS", tmp_path / "scripts")
    figures = tmp_path / "scripts/deeper_layers/reporting/figures"

    def now():
        code_hash.digest.cache_clear()
        return {n: code_hash.code("figure", f"reporting/figures/{e.module}") for n, e in FIGURES.items()}

    def edit(file, old, new):
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    first = now()
    edit(figures / "registry.py", "coloured ones are gone", "the coloured ones are gone")
    assert now() == first
    edit(figures / "cost.py", 'fontsize": 5.5', 'fontsize": 6.5')
    second = now()
    assert {name for name in FIGURES if second[name] != first[name]} == {"speed", "pareto"}
    edit(figures / "style.py", "#0072B2", "#0072B3")
    third = now()
    assert all(third[name] != second[name] for name in FIGURES)
    code_hash.digest.cache_clear()
