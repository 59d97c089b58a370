"""What README.md and docs/embedded.md claim of the default study, checked in the table of a run of it:
``pytest tests/demo_claims.py`` after ``make demo``. A machine on which a claim does not hold is found out so."""

import math
from pathlib import Path

import pandas as pd
import pytest

RESULTS = Path(__file__).parent.parent / "results"
METRICS = ["quiz:knowledge", "quiz:yesno", "quiz:reasoning", "loss"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    table = pd.read_csv(RESULTS / "table.csv")
    return table[table["strategy"] == "similarity"].set_index(["n", "treatment"])
