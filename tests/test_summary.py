"""The summary: what it calls kept, which cut it names, and when it is shown."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest

from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.reporting.ranks import ranks
from deeper_layers.reporting.summary import largest, summary
from deeper_layers.reporting.text import layers_in_words
from deeper_layers.reporting.tradeoff import parts
from helpers.config import ROOT

# n: knowledge (chance 0.2, unpruned 0.8) and loss (chance 5, unpruned 1), un-healed and healed
SCORES = {
    0: {"pruned": (0.8, 1.0)},
    1: {"pruned": (0.79, 1.02), "healed": (0.8, 1.01)},
    2: {"pruned": (0.70, 1.03), "healed": (0.775, 1.04)},
    3: {"pruned": (0.3, 3.0), "healed": (0.78, 1.5)},
    4: {"pruned": (0.2, 4.0), "healed": (0.5, 2.0)},
}


@pytest.fixture
def table():
    rows = []
    for n, treatments in SCORES.items():
        for treatment, (knowledge, loss) in treatments.items():
            for strategy, first in (("similarity", 5), ("deepest", 7 - n)):
                worse = 0.02 * (strategy == "deepest" and n > 0)
                rows.append(
                    {
                        **{"model": "a", "strategy": strategy, "n": n, "treatment": treatment},
                        **{"block": f"drop_{first}-{first + n - 1}" if n else "full", "n_layers": 8},
                        **{"fraction_removed": n / 8, "parameters": 1e6 - 1e5 * n, "bytes": 4e6 - 4e5 * n},
                        **{"knowledge": knowledge - worse, "knowledge_stderr": 0.01},
                        **{"loss": loss + worse, "loss_stderr": 0.01},
                        **{"normalised_loss": loss / 5, "normalised_loss_stderr": 0.002},
                        **{"coin": 0.5, "coin_stderr": 0.01},
                    }
                )
    return pd.DataFrame(rows)


LEVELS = pd.DataFrame(
    [("a", "knowledge", "chance", 0.2), ("a", "loss", "chance", 5.0), ("a", "coin", "chance", 0.5)],
    columns=["model", "metric", "level", "value"],
)


def test_what_a_cut_retains_is_counted_from_chance(table):
    rows = parts(table, LEVELS, "a")
    some = rows[(rows.strategy == "similarity") & (rows.treatment == "healed")].set_index("n")
    assert some["retained_knowledge"].tolist() == pytest.approx([1, 0.575 / 0.6, 0.58 / 0.6, 0.3 / 0.6])
    assert some["retained_loss"].tolist() == pytest.approx([0.99, 0.96, 0.5, 0])
    assert some["worst"].tolist() == pytest.approx([0.99, 0.575 / 0.6, 0.5, 0])
    assert some["average"].tolist() == pytest.approx([0.995, (0.575 / 0.6 + 0.96) / 2, 0.88 / 1.2, 0.25])
    assert some["average_stderr"].tolist() == pytest.approx([((0.01 / 0.6) ** 2 + 0.01**2) ** 0.5 / 2] * 4)
    assert (
        "retained_coin" not in rows and "retained_normalised_loss" not in rows
    )  # not learned; the loss again


@pytest.mark.parametrize("unpruned, learned", [(4.96, True), (4.98, False), (5.2, False)])
def test_what_has_nothing_to_lose_keeps_nothing(table, unpruned, learned):
    """Hardly better than chance (5): what is left of a loss is counted from there. Else: nothing."""
    table.loc[table.n == 0, "loss"], table.loc[table.n > 0, "loss"] = unpruned, 5.01
    assert ("loss" in judged_as_learned(table)) == learned
    if learned:
        rows = parts(table, LEVELS, "a")
        assert rows["retained_loss"].tolist() == pytest.approx([-0.25] * len(rows))
    else:
        assert f"Left out: loss ({unpruned:.3f} ± 0.010: no better than chance, 5.000)" in said(table)


def judged_as_learned(table):
    return [
        name.removeprefix("retained_") for name in parts(table, LEVELS, "a") if name.startswith("retained_")
    ]


def said(table, **more):
    return summary(table, LEVELS, 0.05, "snakemake export", **{"made": {}, **more})


def test_the_most_layers_of_each_metric_and_of_all(table):
    rows = parts(table, LEVELS, "a")
    healed, pruned = rows[rows.treatment == "healed"], rows[rows.treatment == "pruned"]
    assert largest(healed, "retained_knowledge", 0.95)[["n", "strategy"]].tolist() == [3, "similarity"]
    assert largest(pruned, "retained_knowledge", 0.95)["n"] == 1
    assert largest(pruned, "retained_loss", 0.95)["n"] == 2 and largest(pruned, "worst", 0.995) is None
    row = largest(healed, "worst", 0.95)
    assert (row["block"], row["strategy"]) == ("drop_5-6", "similarity")


def test_the_summary_says_it(table):
    text = summary(table, LEVELS, 0.05, "snakemake export --configfile mine.yaml", {"a": "Measured here."})
    rows = [line for line in text.split("### healed")[1].splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows[:6]}) == 1  # columns are aligned, to be read in a terminal
    text = re.sub(" +", " ", text)
    healed, pruned = text.split("### healed")[1], text.split("### healed")[0]
    assert "## a: 8 layers, 1.00 M parameters" in text and "Measured here." in text
    assert "Left out: coin (0.500 ± 0.010: no better than chance, 0.500)." in text
    assert "| layers removed | drop | chosen by | knowledge | loss | average | mean ratio |" in healed
    # The ratio is 0.78 / 0.8 of the knowledge, of which 0.2 are chance; the loss is no part of it.
    assert "| 3 | 5 to 7 | similarity | 97 ± 2 % | 50 ± 1 % | 73 ± 1 % | 98 ± 1 % |" in healed
    assert (
        "| 4 | 5 to 8 | similarity | 0 ± 2 % | 0 ± 1 % | 0 ± 1 % | 25 ± 1 % |" in pruned
    )  # worse than nothing is nothing
    assert "if so much may be lost | unpruned | 1 % | 5 % | 10 % | 20 % | breaks after |" in healed
    assert "| knowledge | 0.800 ± 0.010 | 1 | 3 | 3 | 3 | 3 |" in healed
    assert "| loss | 1.000 ± 0.010 | 1 | 2 | 2 | 2 | 2 |" in healed
    assert "| all of them | | 1 | 2 | 2 | 2 | 2 |" in healed
    assert "| all of them | | 0 | 1 | 1 | 2 | 2 |" in pruned
    assert "**Between n = 3 and 4 it breaks**: 47 ± 2 % of knowledge is lost there for good." in healed
    assert "**Between n = 2 and 4 it breaks**: 96 ± 1 % of loss is lost there for good." in healed
    both = "**Between n = 2 and 3 it breaks**: 67 ± 2 % of knowledge and 97 ± 1 % of loss are lost"
    assert both in pruned and "is worse than" not in text
    assert "Without layers 5 to 6 the model keeps knowledge and loss within 5 %, as measured." in healed
    saved = "25 % of the layers, 20 % of the parameters and 20 % of the bytes on disk."
    assert f"Removing layers 5 to 6 saves {saved}" in healed
    assert "snakemake export --configfile mine.yaml --config 'export=[a/healed/drop_5-6]'" in healed
    assert "Without layer 5 the model keeps knowledge and loss within 5 %" in pruned
    # Two layers lose more than that, but less than their share.
    two = "**The best compromise** is without layers 5 to 6: with 75 % of the layers it retains 83 ± 2 % of "
    assert f"{two}knowledge and 97 ± 1 % of loss." in pruned and "best compromise" not in healed
    assert pruned.index("[a/pruned/drop_5-5]") < pruned.index("[a/pruned/drop_5-6]")
    fast = table.assign(
        prefill=1000 + 500 * table.n, decode=10 + 5 * table.n, memory_bytes=5e6 - 5e5 * table.n
    )
    text = said(fast).split("### healed")[1]
    assert "20 % of the bytes on disk and 20 % of the memory." in text
    assert "It is 2.00 times as fast in reading a prompt and 2.00 times as fast in writing." in text


def test_layers_that_do_not_follow_each_other_are_named_run_by_run(table):
    table["block"] = table["block"].replace("drop_5-6", "drop_2_5-6")
    assert "Without layers 2 and 5 to 6 the model keeps" in said(table)


def test_where_no_cut_keeps_all_the_best_compromise_is_named_and_exported(table):
    """Healed, no cut keeps the loss, and four layers keep knowledge: un-healed, one layer keeps both."""
    healed = table.treatment == "healed"
    table.loc[healed & (table.n > 0), ["loss", "knowledge"]] = [1.7, 0.8]
    text = said(table).split("### healed")[1]
    assert "No cut keeps knowledge and loss within 5 %.\nWhat does: without layer 5, un-healed." in text
    best = "**The best compromise** is without layers 5 to 8: with 50 % of the layers it retains"
    assert f"{best} 100 ± 2 % of knowledge and 30 ± 1 % of loss." in text
    assert "Removing layers 5 to 8 saves 50 % of the layers" in text and "[a/healed/drop_5-8]" in text
    table.loc[~healed & (table.n > 0), "loss"] = 1.5
    assert "What does" not in said(table)


def test_a_choice_that_one_of_more_layers_beats_is_named(table):
    table.loc[(table.n == 1) & (table.treatment == "pruned"), "loss"] = 1.3
    text = said(table).split("### healed")[0]
    assert "n = 1 (5) is worse than n = 2 (5 to 6)" not in text  # better in knowledge
    table.loc[(table.n == 1) & (table.treatment == "pruned"), "knowledge"] = 0.7
    text = said(table).split("### healed")[0]
    assert "n = 1 (5) is worse than n = 2 (5 to 6) in loss." in text


def test_what_breaks_at_once_leaves_a_compromise_of_the_others(table):
    """Knowledge goes with the first layer, the loss with the fourth."""
    pruned = (table.treatment == "pruned") & (table.n > 0)
    table.loc[pruned, "knowledge"] = 0.2 + 0.2 * (table.n == 1)
    table.loc[pruned, "loss"] = table.n.map({1: 1.06, 2: 1.08, 3: 1.1, 4: 2})
    text = said(table).split("### healed")[0]
    one = "with 88 % of the layers it retains 33 ± 2 % of knowledge and 94 ± 1 % of loss."
    assert f"**The best compromise** is without layer 5: {one}" in text
    best = "**If knowledge may be lost, the best** is without layers 5 to 7: with 62 % of the layers"
    assert f"{best} it retains 0 ± 2 % of knowledge and 90 ± 1 % of loss." in text
    assert text.index("[a/pruned/drop_5-5]") < text.index("[a/pruned/drop_5-7]")
    table.loc[pruned, "knowledge"] = table.n.map({1: 0.7, 2: 0.66, 3: 0.62, 4: 0.58})
    assert "may be lost, the best" not in said(table)


def test_what_healing_does_to_the_uncut_model_stands_above_its_cuts(table):
    control = table[table.n == 0].assign(treatment="healed", loss=0.9)
    text = re.sub(" +", " ", said(pd.concat([table, control], ignore_index=True)))
    unhealed, healed = text.split("### healed")
    assert "| 0 | none | (control) | 100 ± 2 % | 110 ± 1 % | 100 ± 1 % | 100 ± 1 % |\n| 1 |" in healed
    assert "control" not in unhealed and "breaks after |" in healed


def test_strategies_and_treatments_are_ranked_over_what_they_have_in_common(table):
    """By hand: similarity is better in both measures at n = 1 to 4; healing has a tie in none."""
    said = summary(table, LEVELS, 0.05, "snakemake export", {})
    assert re.search(r"\| similarity +\| +1\.0 ± 0\.0 \|\n\| deepest +\| +2\.0 ± 0\.0 \|", said)
    assert "over the 4 numbers of layers that all have, un-healed" in said
    assert re.search(r"\| healed +\| +1\.1 ± 0\.1 \|\n\| un-healed +\| +1\.9 ± 0\.1 \|", said)
    assert "over the 8 cuts that all have" in said


def test_ranks_by_hand():
    rows = pd.DataFrame(
        [("a", 1, 0.9, 0.5), ("b", 1, 0.8, 0.5), ("c", 1, 0.7, 0.6)]
        + [("a", 2, 0.1, 0.2), ("b", 2, 0.3, 0.4), ("c", 2, 0.2, 0.3)]
        + [("a", 3, 1.0, 1.0), ("b", 3, 0.0, 0.0)],  # c has none of these
        columns=["strategy", "n", "retained_x", "retained_y"],
    )
    found = ranks(rows, "strategy", ["n"], ["x", "y"]).set_index("strategy")
    # n = 1: x 1, 2, 3 and y 2.5, 2.5, 1; n = 2: 3, 1, 2 twice
    assert found["rank"].to_dict() == {"b": (2.25 + 1) / 2, "c": 2.0, "a": (1.75 + 3) / 2}
    assert found.index.tolist() == ["b", "c", "a"] and set(found["cells"]) == {2}
    assert found["stderr"]["b"] == pytest.approx(abs(2.25 - 1) / 2) and found["stderr"]["c"] == 0
    assert ranks(rows[rows.strategy == "a"], "strategy", ["n"], ["x"]).empty
    assert ranks(rows[rows.n != 1].query("strategy == 'c' or n == 3"), "strategy", ["n"], ["x"]).empty


def test_what_has_no_chance_level_is_named(table):
    table["perplexity"], table["perplexity_stderr"] = 20.0, 1.0
    assert "perplexity (20.000 ± 1.000: its chance is not known)" in said(table)


def test_what_has_no_standard_error_is_named(table):
    table["knowledge_stderr"] = float("nan")
    text = said(table)
    assert "Left out: knowledge (0.800: its standard error is not known) and coin" in text
    assert "keeps loss within" in text


def test_a_model_that_knows_nothing_has_nothing_to_keep(table):
    text = summary(table[["model", "n", "n_layers", "parameters", "treatment"]], LEVELS, 0.05, "", {})
    assert "No metric is better than chance: nothing to keep." in text


HEADS = ("| layers ", "| strategy ", "| treatment ", "| --", "| -:")


@pytest.mark.parametrize("suites", [[], ["quiz"]])
def test_the_program(table, suites, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    LEVELS.to_csv(tmp_path / "levels.csv", index=False)
    full = tmp_path / "a/pruned/quiz/full.json"
    full.parent.mkdir(parents=True)
    versions = {"torch": "2.13.0", "transformers": "5.23.0", "lm-eval": "0.4.13"}
    made = {"device": "a card", "precision": "nf4", "versions": versions}
    full.write_text(json.dumps({"results": {}, "deeper_layers": made}))
    command = [sys.executable, ROOT / "scripts/summary.py", "--table", tmp_path / "table.csv", "--levels"]
    command += [tmp_path / "levels.csv", "--out", tmp_path / "summary.md", tmp_path / "summary.html"]
    contents = {"models": ["a"], "strategies": ["similarity", "deepest"], "suites": suites}
    (tmp_path / "study.json").write_text(json.dumps(contents))
    command += ["--study", tmp_path / "study.json"]
    subprocess.run(command, check=True)
    text = (tmp_path / "summary.md").read_text()
    assert "export=[a/healed/drop_5-6]" in text
    page = (tmp_path / "summary.html").read_text()  # the same, to open: nothing of the Markdown is left
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert cells == [
        cell.strip()
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(HEADS)
        for cell in line.strip("|").split("|")
    ]
    assert page.count("<pre>snakemake export") == text.count("```bash") and page.count("<h3>") == 4
    assert "|" not in page and "```" not in page and "**" not in page
    assert not re.search(r"^#", page, re.MULTILINE)
    assert ("Measured in nf4 on a card, torch 2.13.0, transformers 5.23.0, lm-eval 0.4.13." in text) == bool(
        suites
    )


def test_layers_in_words():
    words = {"drop_5-5": "5", "drop_21-28": "21 to 28", "drop_3_7-9": "3 and 7 to 9"}
    words["drop_0-1_4_6"] = "0 to 1, 4 and 6"
    assert {name: layers_in_words(LayerSet.parse(name)) for name in words} == words
