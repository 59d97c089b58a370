"""The summary: what it calls kept, which cut it names, and when it is shown."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

from deeper_layers.summary import best, kept, largest, summary

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


def test_a_cut_keeps_what_is_far_enough_from_chance(table):
    rows = kept(table, LEVELS, "a", 0.05)
    some = rows[(rows.strategy == "similarity") & (rows.treatment == "healed")].set_index("n")
    assert some["retained_knowledge"].tolist() == pytest.approx([1, 0.575 / 0.6, 0.58 / 0.6, 0.3 / 0.6])
    assert some["retained_loss"].tolist() == pytest.approx([0.99, 0.96, 0.5, 0])
    assert some["keeps_knowledge"].tolist() == [True, True, True, False]
    assert some["keeps_loss"].tolist() == [True, True, False, False]
    assert "keeps_coin" not in rows and "keeps_normalised_loss" not in rows  # not learned; the loss again


def test_the_most_layers_of_each_metric_and_of_all(table):
    rows = kept(table, LEVELS, "a", 0.05)
    healed, pruned = rows[rows.treatment == "healed"], rows[rows.treatment == "pruned"]
    assert largest(healed, "knowledge")[["n", "strategy"]].tolist() == [3, "similarity"]
    assert largest(pruned, "knowledge")["n"] == 1 and largest(pruned, "loss")["n"] == 2
    row = best(healed, ["knowledge", "loss"])
    assert (row["block"], row["strategy"]) == ("drop_5-6", "similarity")
    assert best(kept(table, LEVELS, "a", 0)[lambda r: r.treatment == "pruned"], ["loss"]) is None


def test_the_summary_says_it(table):
    text = summary(table, LEVELS, 0.05, "snakemake export --configfile mine.yaml", {"a": "Measured here."})
    healed, pruned = text.split("### healed")[1], text.split("### healed")[0]
    assert "## a: 8 layers, 1.00 M parameters" in text and "Measured here." in text
    assert "| knowledge | 0.800 ± 0.010 | 3 | 5 to 7 | similarity | 0.780 ± 0.010 | 97 % |" in healed
    assert "Without layers 5 to 6 the model keeps knowledge and loss." in healed
    assert "It saves 25 % of the layers, 20 % of the parameters and 20 % of the bytes on disk." in healed
    assert "snakemake export --configfile mine.yaml --config 'export=[a/healed/drop_5-6]'" in healed
    assert "Without layer 5 the model keeps knowledge and loss." in pruned
    fast = table.assign(
        prefill=1000 + 500 * table.n, decode=10 + 5 * table.n, memory_bytes=5e6 - 5e5 * table.n
    )
    text = summary(fast, LEVELS, 0.05, "", {}).split("### healed")[1]
    assert "20 % of the bytes on disk and 20 % of the memory." in text
    assert "It is 2.00 times as fast in reading a prompt and 2.00 times as fast in writing." in text


def test_a_model_that_knows_nothing_has_nothing_to_keep(table):
    text = summary(table[["model", "n", "n_layers", "parameters", "treatment"]], LEVELS, 0.05, "", {})
    assert "No metric is better than chance: nothing to keep." in text


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
    command += [tmp_path / "levels.csv", "--out", tmp_path / "summary.md", "--suites", *suites]
    subprocess.run(command, check=True)
    text = (tmp_path / "summary.md").read_text()
    assert "export=[a/healed/drop_5-6]" in text
    assert ("Measured in nf4 on a card, torch 2.13.0, transformers 5.23.0, lm-eval 0.4.13." in text) == bool(
        suites
    )
