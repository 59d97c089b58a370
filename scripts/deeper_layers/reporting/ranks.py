"""Which strategies and treatments do best, over all that they have in common: mean ranks."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def ranks(rows: pd.DataFrame, of: str, over: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """The mean rank of each value of the column ``of``, the best first: 1 is best, equal ones share theirs.

    In each cell, a combination of values of the columns ``over``, the values are ranked by each metric
    (``retained_METRIC``, see ``tradeoff.parts``), and a cell's rank is the mean over ``metrics``. Only cells
    that have all values count. ``rank`` is the mean over cells and ``stderr`` its standard error (NaN for
    one cell), ``cells`` their number; empty if there is no cell or one value.
    """
    whole = rows.groupby(list(over)).filter(lambda cell: cell[of].nunique() == rows[of].nunique())
    if whole.empty or rows[of].nunique() < 2:
        return pd.DataFrame(columns=[of, "rank", "stderr", "cells"])
    cells = whole.groupby(list(over))
    by_metric = [cells[f"retained_{metric}"].rank(ascending=False) for metric in metrics]
    found = whole.assign(rank=pd.concat(by_metric, axis=1).mean(axis=1)).groupby(of, sort=False)["rank"]
    ranked = found.agg(rank="mean", stderr="sem", cells="size").reset_index()
    return ranked.sort_values("rank", kind="stable", ignore_index=True)
