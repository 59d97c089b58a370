"""What README.md claims of the default study, checked in the table of a run of it: ``pytest
tests/demo_claims.py`` after ``make demo``. A machine on which a claim does not hold is found out so."""

import math
from pathlib import Path

import pandas as pd
import pytest

RESULTS = Path(__file__).parent.parent / "results"
ACCURACIES = ["knowledge", "yesno", "reasoning"]


@pytest.fixture(scope="module")
def variants() -> pd.DataFrame:
    """The blocks that similarity chose, by n and treatment."""
    table = pd.read_csv(RESULTS / "table.csv")
    return table[table["strategy"] == "similarity"].set_index(["n", "treatment"])


@pytest.mark.parametrize("metric", [*ACCURACIES, "loss"])
def test_more_training_does_no_harm_to_the_uncut_model(variants, metric):
    """The control, healed but not cut, is no worse than the unpruned model within two standard errors."""
    control, unpruned = variants.loc[0, "healed"], variants.loc[0, "pruned"]
    worse = (unpruned[metric] - control[metric]) * (-1 if metric == "loss" else 1)
    assert worse <= 2 * math.hypot(control[f"{metric}_stderr"], unpruned[f"{metric}_stderr"])


def test_healing_brings_back_the_loss_with_half_of_the_layers(variants):
    """At least 85 % of what the cut had cost."""
    unpruned, cut, healed = (
        variants.loc[key, "loss"] for key in [(0, "pruned"), (6, "pruned"), (6, "healed")]
    )
    assert (cut - healed) / (cut - unpruned) >= 0.85


def test_knowledge_survives_the_removal_of_a_third(variants):
    """Without healing."""
    assert variants.loc[(4, "pruned"), "knowledge"] >= variants.loc[(0, "pruned"), "knowledge"] - 0.1


def test_reasoning_does_not_survive_the_removal_of_five(variants):
    """Without healing, it falls to less than half."""
    assert variants.loc[(5, "pruned"), "reasoning"] <= variants.loc[(0, "pruned"), "reasoning"] / 2
