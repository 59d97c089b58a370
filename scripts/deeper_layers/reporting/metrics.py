"""What a results table says: its metrics, how good the unpruned model is at them, and what cuts retain.

``table`` and ``levels`` are the data frames that ``table.build`` makes and ``read_table`` reads.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import UserError
from ..layout import PRUNED
from .scores import MACRO, existing

AGAIN = ("normalised_loss", MACRO)  # ends of the names of what is another metric again
SIGNIFICANT = 3  # standard errors that a difference must exceed to be one: many are looked at


def read_table(path: str | Path) -> pd.DataFrame:
    """A table.csv or levels.csv. Raises UserError when it is missing."""
    return pd.read_csv(existing(Path(path), "table.py"))


def metrics(table: pd.DataFrame) -> list[str]:
    """The names of the metrics of a table, in its order."""
    return [column for column in table if f"{column}_stderr" in table]


def unpruned(table: pd.DataFrame, model: str) -> pd.Series:
    """The row of the full model. Raises UserError if the table has none."""
    full = table[(table["model"] == model) & (table["n"] == 0) & (table["treatment"] == PRUNED)]
    if full.empty:
        raise UserError(f"the table has no unpruned row (n = 0) of {model}")
    return full.iloc[0]


def chance(levels: pd.DataFrame, model: str, metric: str) -> float | None:
    """The score of pure guessing (of a loss, ln V); None where it is not known."""
    rows = levels[(levels["model"] == model) & (levels["metric"] == metric) & (levels["level"] == "chance")]
    return None if rows.empty else rows["value"].iloc[0]


def is_loss(table: pd.DataFrame, metric: str) -> bool:
    """Whether a metric is a held-out loss, which is better when smaller, one divided by ln V, or a
    perplexity."""
    if is_perplexity(metric):
        return True
    name = metric.removesuffix("normalised_loss").removesuffix("loss")
    return f"{name}loss" in table and f"{name}normalised_loss" in table


def is_perplexity(metric: str) -> bool:
    """Whether a metric is the perplexity of a suite, by its name."""
    return metric == "perplexity" or metric.endswith("_perplexity")


def above_chance(table: pd.DataFrame, levels: pd.DataFrame, model: str) -> list[str]:
    """The metrics at which the unpruned model is better than chance by more than 3 standard errors, without
    the normalised loss, which is the loss again."""
    return [metric for metric, reason in omitted(table, levels, model).items() if reason is None]


def omitted(table: pd.DataFrame, levels: pd.DataFrame, model: str) -> dict[str, str | None]:
    """Every metric but those that are another again, with the reason why what a cut retains of it means
    nothing, or None where it does mean something (see ``above_chance``)."""
    reasons, full = {}, unpruned(table, model)
    for metric in metrics(table):
        level = chance(levels, model, metric)
        if metric.endswith(AGAIN):
            continue
        if level is None:
            reasons[metric] = "its chance is not known"
            continue
        if pd.isna(full[f"{metric}_stderr"]):
            reasons[metric] = "its standard error is not known"
            continue
        above = level - full[metric] if is_loss(table, metric) else full[metric] - level
        no_better = not above > SIGNIFICANT * full[f"{metric}_stderr"]
        reasons[metric] = f"no better than chance, {level:.3f}" if no_better else None
    return reasons


def retained(
    rows: pd.DataFrame, metric: str, full: pd.Series, level: float, loss: bool = False
) -> pd.DataFrame:
    """``rows`` with the metric and its standard error as the part retained of what the unpruned model has:
    1 is the unpruned model.

    Of a score, that is the part of the way from chance to the unpruned model: 0 is chance. Of a loss, 1 less
    the part by which it has grown: 0 is twice the unpruned loss; or, where chance is nearer than that, the
    part of the way from it. Chance is so far from a trained model that a useless one would have most of the
    way left. Of a perplexity it is that of its logarithm, which is a loss.

    Args:
        rows: rows of the table, of one model.
        metric: the metric's column.
        full: the row of the unpruned model; taken as exact.
        level: chance; taken as exact.
        loss: whether the metric is a loss.
    """
    if is_perplexity(metric):
        stderr = rows[f"{metric}_stderr"] / rows[metric]
        rows = rows.assign(**{metric: np.log(rows[metric]), f"{metric}_stderr": stderr})
        full, level = pd.Series({metric: math.log(full[metric])}), math.log(level)
    whole = -min(full[metric], level - full[metric]) if loss else full[metric] - level
    stderr = f"{metric}_stderr"
    left = 1 + (rows[metric] - full[metric]) / whole
    return rows.assign(**{metric: left, stderr: rows[stderr] / abs(whole)})
