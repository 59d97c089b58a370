"""The values that the paper's figures show, to set beside ours (resources/published/results.csv).

They were read off figures 2 and 5 of arXiv 2403.17887; the file's ``uncertainty`` is the error of reading.
"""

from __future__ import annotations

import csv

from ..resources import resource

RESULTS = resource("published/results.csv")

# The recipe to compare with the authors' healing, and the strategy that their own blocks stand for.
TREATMENTS = {"pruned": "pruned", "healed": "healed"}
STRATEGIES = {"similarity": "similarity", "deepest": "deepest", "published": "similarity"}


class Published:
    """The published values of one model, by its hub id; empty for a model that the paper does not have."""

    def __init__(self, model_id: str):
        self.values: dict[tuple, float] = {}
        best: dict[tuple, float] = {}
        with open(RESULTS, newline="") as file:
            for row in csv.DictReader(file):
                key = row["strategy"], int(row["n_removed"]), row["treatment"], row["metric"]
                # MMLU of Llama-2-70B is in two figures: take the one that can be read more exactly.
                error = float(row["uncertainty"])
                if row["model"] == model_id and error < best.get(key, float("inf")):
                    self.values[key], best[key] = float(row["value"]), error

    def value(self, strategy: str, n: int, treatment: str, metric: str) -> float | None:
        """The value beside our row, where the paper has one. Its un-healed models are our ``pruned``, its
        healed ones our recipe ``healed``; the strategy ``published`` is the paper's similarity."""
        key = STRATEGIES.get(strategy), n, TREATMENTS.get(treatment), metric
        return self.values.get(key)


def published_names(result: dict, is_c4: bool) -> dict[str, str]:
    """{our metric: the paper's} of an evaluation's JSON, whether or not the paper has it.

    A task of lm-eval is known by its number of examples (``mmlu_5shot``), the loss by its text: only that
    of C4 (``is_c4``) is the paper's.
    """
    tasks = [*result.get("n-shot", {}), *result.get("group_subtasks", {})]
    names = {task: f"{task}_{shots}shot" for task in tasks if (shots := _shots(result, task)) is not None}
    return names | ({"loss": "c4_loss_nats"} if is_c4 else {})


def _shots(result: dict, task: str) -> int | None:
    """How many examples a task shows, or all tasks of a group; None if these differ."""
    shots = result.get("n-shot", {})
    if task in shots:
        return shots[task]
    counts = {_shots(result, inside) for inside in result["group_subtasks"].get(task, [])}
    return counts.pop() if len(counts) == 1 else None
