"""What a figure shows of a study's table: what is asked for, else what the table has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ...errors import UserError
from ...layout import PRUNED
from ..metrics import AGAIN, above_chance, chance, metrics


@dataclass(frozen=True)
class Selection:
    """The models, metrics, strategies and recipes of a table that a figure shows.

    Attributes:
        table: the results table, of all models: their place in it decides their colours.
        levels: its levels.
        families: families of models; those of one family share a panel.
        metrics: the metrics to show.
        strategies: the strategies to show; a figure of one shows the first.
        recipes: the healing recipes to show; a figure of one shows the first.
        asked: the options that were given, as ``of`` takes them.
    """

    table: pd.DataFrame
    levels: pd.DataFrame
    families: tuple[tuple[str, ...], ...]
    metrics: tuple[str, ...]
    strategies: tuple[str, ...]
    recipes: tuple[str, ...]
    asked: Mapping[str, str | Sequence]

    @classmethod
    def of(cls, table: pd.DataFrame, levels: pd.DataFrame, options: Mapping | None = None) -> Selection:
        """The selection of a table.

        Args:
            table: the results table.
            levels: its levels.
            options: ``models`` (a list of families, each a list of models; default: each model is a family),
                ``metrics`` (default: all but those that are another again, see ``metrics.AGAIN``),
                ``strategy`` (default: all), ``recipe`` or ``recipes`` (default: all).

        Raises:
            UserError: that says what the table has, if it has not what is asked for.
        """
        asked = {name: value for name, value in (options or {}).items() if value}
        known = metrics(table)
        for metric in asked.get("metrics", []):
            if metric not in known:
                raise UserError(f"the table has no metric {metric!r}; it has {', '.join(known)}")
        recipes = [asked["recipe"]] if "recipe" in asked else asked.get("recipes")
        for recipe in recipes or []:
            with_values(table, treatment=recipe)
        strategies = [asked["strategy"]] if "strategy" in asked else table["strategy"].unique()
        families = asked.get("models") or [[model] for model in table["model"].unique()]
        return cls(
            table,
            levels,
            tuple(map(tuple, families)),
            tuple(asked.get("metrics", [name for name in known if not name.endswith(AGAIN)])),
            tuple(strategies),
            tuple(recipes or [name for name in table["treatment"].unique() if name != PRUNED]),
            asked,
        )

    @property
    def models(self) -> list[str]:
        """The models of all families."""
        return [model for family in self.families for model in family]

    @property
    def model(self) -> str:
        """The one model. Raises UserError if there are several."""
        if len(self.models) != 1:
            known = ", ".join(self.models)
            raise UserError(f"this figure shows one model: choose with --models one of {known}")
        return self.models[0]

    @property
    def strategy(self) -> str:
        """The first strategy."""
        return self.strategies[0]

    @property
    def treatments(self) -> list[str]:
        """Un-healed, then the first recipe, if there is one."""
        return [PRUNED, *self.recipes[:1]]

    def of_model(self, model: str) -> Selection:
        """The same of the rows of one model; what was not asked for is what these have."""
        rows = with_values(self.table, model=model)
        return Selection.of(rows, self.levels, {**self.asked, "models": [[model]]})

    def curve(self, model: str, strategy: str, treatment: str) -> pd.DataFrame:
        """The rows of one curve; none where a recipe healed none of the strategy's cuts."""
        rows = with_values(self.table, model=model, strategy=strategy)
        return rows[rows["treatment"] == treatment]

    def above_chance(self, model: str) -> list[str]:
        """The metrics asked for; else those at which the unpruned model is better than chance."""
        return list(self.metrics) if "metrics" in self.asked else above_chance(self.table, self.levels, model)

    def chance(self, model: str, metric: str) -> float:
        """The chance level of a metric. Raises UserError if it is not known."""
        level = chance(self.levels, model, metric)
        if level is None:
            raise UserError(f"chance is not known for {metric}: leave it out of --metrics")
        return level

    def loss(self, name: str) -> str:
        """The column ``loss`` or ``normalised_loss``, or the first one of several loss suites."""
        for metric in metrics(self.table):
            if metric == name or metric.endswith(f"_{name}") and not metric.endswith(f"normalised_{name}"):
                return metric
        raise UserError(f"the table has no {name}: this figure needs a loss suite")


def with_values(table: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows whose columns have these values. Raises UserError if there are none."""
    for column, value in values.items():
        known = table[column].unique()
        if value not in known:
            raise UserError(f"the table has no {column} {value!r} here; it has {', '.join(map(str, known))}")
        table = table[table[column] == value]
    return table
