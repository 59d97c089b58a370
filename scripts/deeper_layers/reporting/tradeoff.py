"""What is lost for the layers that go: the best cut of each n, where its curve breaks, the best compromise.

Parts are those of ``metrics.retained``, counted from 0 to 1 wherever cuts are compared: what is worse than
nothing is nothing, and a gain in one metric makes up for no loss in another. Standard errors of two cuts are
added as if these were measured on different questions; they answer the same ones, so a difference is surer
than this says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import hypot

import pandas as pd

from ..layout import PRUNED
from .metrics import SIGNIFICANT, above_chance, chance, is_loss, retained, unpruned

STEEP = 2  # times its equal share of the quality that a layer may take before the curve counts as broken


def parts(table: pd.DataFrame, levels: pd.DataFrame, model: str, uncut: bool = False) -> pd.DataFrame:
    """The cuts of a model, and its ``uncut`` rows if they are asked for, with ``retained_METRIC`` and its
    standard error (``_stderr``) for each metric that the unpruned model does better than chance; ``worst``,
    the least retained of any; ``average``, their mean, and its standard error; ``ratio``, where there are
    scores among them, the mean of the cut's score / the unpruned model's, and its standard error."""
    full = unpruned(table, model)
    rows = table[(table["model"] == model) & (uncut | (table["n"] > 0))]
    names = above_chance(table, levels, model)
    for metric in names:
        left = retained(rows, metric, full, chance(levels, model, metric), is_loss(table, metric))
        columns = {f"retained_{metric}{end}": left[f"{metric}{end}"] for end in ("", "_stderr")}
        rows = rows.assign(**columns)
    if scores := [metric for metric in names if not is_loss(table, metric)]:
        whole = full[scores].astype(float)
        errors = rows[[f"{metric}_stderr" for metric in scores]].to_numpy() / whole.to_numpy()
        rows = rows.assign(
            ratio=(rows[scores] / whole).mean(axis=1, skipna=False),
            ratio_stderr=(errors**2).sum(axis=1) ** 0.5 / len(scores),
        )
    return with_average(rows, names) if names else rows


def with_average(cuts: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The cuts with ``worst`` and ``average`` (see ``parts``) of these metrics alone."""
    values = cuts[[f"retained_{metric}" for metric in metrics]]
    errors = cuts[[f"retained_{metric}_stderr" for metric in metrics]]
    return cuts.assign(
        worst=values.min(axis=1),
        average=values.clip(0, 1).mean(axis=1),
        average_stderr=(errors**2).sum(axis=1) ** 0.5 / len(metrics),
    )


def control(rows: pd.DataFrame, treatment: str) -> pd.DataFrame:
    """Of ``parts`` with the uncut rows, that of the uncut model after a recipe's healing; none if it was not
    healed."""
    healed = rows[(rows["n"] == 0) & (rows["treatment"] == treatment) & (treatment != PRUNED)]
    return healed.head(1)


def best_cuts(cuts: pd.DataFrame) -> pd.DataFrame:
    """Of each n the cut that retains most on average, ascending; of equal ones the first in the table."""
    return cuts.loc[cuts["average"].fillna(-1).groupby(cuts["n"]).idxmax()].sort_values("n")


@dataclass(frozen=True)
class Break:
    """Where a curve breaks: from ``before`` to ``after`` layers removed, ``lost`` of the unpruned model's
    quality (± ``stderr``) is lost for good: no cut of more layers has it again."""

    before: int
    after: int
    lost: float
    stderr: float


def find_break(cuts: pd.DataFrame, metric: str) -> Break | None:
    """Where the curve of a metric breaks, over the best cuts of each n (``best_cuts``); None if it does not.

    The curve is what a cut of at least n layers can retain, so that a bad choice between two good ones is no
    break. If every layer took an equal share of the quality, n of L layers would cost n / L. A stretch of the
    curve is too steep by what it loses beyond ``STEEP`` times that. The break is the stretch that is so by
    most, of those where that is more than ``SIGNIFICANT`` standard errors of what is lost.
    """
    rows = cuts.dropna(subset=f"retained_{metric}")
    if rows.empty:
        return None
    share = STEEP / rows["n_layers"].iloc[0]
    points = [(0, 1.0, 0.0), *_points(rows, metric)]  # the unpruned model is taken as exact
    # From the right: the best of all points from here on.
    ahead = [points[-1]]
    for point in reversed(points[:-1]):
        ahead.insert(0, max(point, ahead[0], key=lambda point: point[1]))
    found, most = None, 0.0
    for (one, (_, high, e)), (two, (_, low, f)) in combinations(zip(points, ahead, strict=True), 2):
        too_steep = high - low - share * (two[0] - one[0])
        if too_steep > most and too_steep > SIGNIFICANT * hypot(e, f):
            found, most = Break(one[0], two[0], high - low, hypot(e, f)), too_steep
    return found


def _points(rows: pd.DataFrame, metric: str) -> Iterator[tuple[int, float, float]]:
    """(n, part from 0 to 1, standard error) of each row."""
    part, stderr = rows[f"retained_{metric}"].clip(0, 1), rows[f"retained_{metric}_stderr"]
    yield from zip(map(int, rows["n"]), part, stderr, strict=True)


def worse_with_fewer(
    cuts: pd.DataFrame, metrics: Sequence[str]
) -> list[tuple[pd.Series, pd.Series, list[str]]]:
    """The cuts that one of more layers beats: worse in some metrics, by more than ``SIGNIFICANT`` standard
    errors of the difference, and so better in none. Each with the cut that beats it in most metrics (of equal
    ones that of highest average) and their names."""
    found = []
    for i, row in enumerate(rows := [row for _, row in cuts.iterrows()]):
        rivals = [(other, _better(other, row, metrics)) for other in rows[i + 1 :]]
        rivals = [(other, won) for other, won in rivals if won and not _better(row, other, metrics)]
        if rivals:
            other, won = max(rivals, key=lambda rival: (len(rival[1]), rival[0]["average"]))
            found.append((row, other, won))
    return found


def _better(one: pd.Series, other: pd.Series, metrics: Sequence[str]) -> list[str]:
    """The metrics of which a cut retains significantly more than another."""

    def gain(metric: str) -> float:
        mine, theirs = (min(1, max(0, row[f"retained_{metric}"])) for row in (one, other))
        return mine - theirs

    def noise(metric: str) -> float:
        return hypot(*(row[f"retained_{metric}_stderr"] for row in (one, other)))

    return [metric for metric in metrics if gain(metric) > SIGNIFICANT * noise(metric)]


def compromise(cuts: pd.DataFrame) -> pd.Series:
    """Of the best cuts that retain half on average, the one whose average lies farthest above the line on
    which every layer takes an equal share of the quality, or least below it; the best average if there is
    none."""
    half = cuts[cuts["average"] >= 0.5]
    if half.empty:
        return cuts.loc[cuts["average"].fillna(-1).idxmax()]
    return half.loc[(half["average"] + half["fraction_removed"]).idxmax()]
