"""A page to explore the results table: a chart of every cut by any metric, with strategies and treatments to
be switched on and off, and what is known of the cut under the pointer. One file, which needs no network.

The chart is a specification of Vega-Lite, which Altair makes and checks; Vega itself comes with vl-convert
and is written into the page. The page's own part is resources/explore.html.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt
import jinja2
import pandas as pd
import vl_convert

from ..layout import PRUNED
from ..pruning.layer_set import LayerSet
from ..resources import resource
from .columns import SPEEDS, VARIANT
from .figures.style import label, strategy_colour
from .metrics import AGAIN, is_loss, metrics, omitted
from .text import layers_in_words
from .tradeoff import best_cuts, compromise, parts

TEMPLATE = resource("explore.html")
UNHEALED = {"dash": [1.5, 3], "shape": "cross"}
DASHES, SHAPES = [[], [7, 3], [10, 3, 2, 3], [14, 4], [4, 2]], ["circle", "square", "diamond", "triangle-up"]
KNOWN = [*VARIANT, "n_layers", "parameters", "bytes", "memory_bytes", *SPEEDS]  # beside the metrics


def page(table: pd.DataFrame, levels: pd.DataFrame, command: str) -> str:
    """The page, as HTML.

    Args:
        table: the results table.
        levels: its levels.
        command: what exports a checkpoint of the study (it gets ``--config``).
    """
    models = list(map(str, table["model"].unique()))
    strategies = {str(name): strategy_colour(table, name) for name in table["strategy"].unique()}
    treatments = _treatments([str(name) for name in table["treatment"].unique()])
    cuts = _cuts(table, levels)
    content = {
        "metrics": {name: label(name).replace("$", "") for name in _metrics(table)},
        "omitted": {model: omitted(table, levels, model) for model in models},
        "strategies": strategies,
        "treatments": treatments,
        "advised": {model: _advised(table, levels, cuts, model) for model in models},
        "cuts": cuts,
        "levels": _levels(table, levels),
        "command": command,
    }
    spec = _chart(strategies, treatments).to_dict()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {}  # unsorted: the page has the order of the table
    return environment.from_string(TEMPLATE.read_text()).render(content=content, spec=spec, vega=_vega())


@cache
def _vega() -> str:
    """Vega and what embeds it, as a script, in the version that Altair's charts are of."""
    version = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return vl_convert.javascript_bundle(vl_version=version)


def _treatments(names: list[str]) -> dict[str, dict[str, Any]]:
    """Line, marker and label of each treatment: un-healed first, then the recipes in their order."""
    recipes = [name for name in names if name != PRUNED]
    styles = {PRUNED: UNHEALED} if PRUNED in names else {}
    for i, name in enumerate(recipes):
        styles[name] = {"dash": DASHES[i % len(DASHES)], "shape": SHAPES[i % len(SHAPES)]}
    return {name: {"label": label(name), **style} for name, style in styles.items()}


def _metrics(table: pd.DataFrame) -> list[str]:
    """All but those that are another again."""
    return [name for name in metrics(table) if not name.endswith(AGAIN)]


def _cuts(table: pd.DataFrame, levels: pd.DataFrame) -> list[dict[str, Any]]:
    """Every row of the table as the page has it: what is known, under the table's names, and what is retained
    in per cent; ``id``, ``gone`` (the runs of layers it lacks) and ``layers``, in words."""
    names = _metrics(table)
    rows = []
    for model in table["model"].unique():
        of_model = parts(table, levels, model, uncut=True)
        columns = [
            f"{start}{name}{end}" for name in names for start in ("", "retained_") for end in ("", "_stderr")
        ]
        of_model = of_model[[column for column in [*KNOWN, *columns] if column in of_model]]
        rows += of_model.astype(object).to_dict("records")
    return [_cut(i, row) for i, row in enumerate(rows)]


def _cut(number: int, row: dict[str, Any]) -> dict[str, Any]:
    block = LayerSet.parse(row["block"])
    known = {name: value for name, value in row.items() if pd.notna(value)}
    known |= {name: 100 * value for name, value in known.items() if name.startswith("retained_")}
    known = {name: _rounded(value) for name, value in known.items()}
    return {"id": number, "gone": block.runs, "layers": layers_in_words(block) if block.n else "none"} | known


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _levels(table: pd.DataFrame, levels: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines to draw: of each metric the unpruned model, and of ``levels`` those that its values come near
    (chance is far above most losses); of what is retained, all and nothing."""
    lines = []
    for model, rows in table.groupby("model", sort=False):
        full = rows[(rows["n"] == 0) & (rows["treatment"] == PRUNED)].iloc[0]
        for name in _metrics(table):
            lines += [(model, name, "unpruned", full[name])]
            known = levels[(levels["model"] == model) & (levels["metric"] == name)]
            for level, value in zip(known["level"], known["value"], strict=True):
                if not is_loss(table, name) or value <= rows[name].max():
                    lines.append((model, name, level, value))
            lines += [
                (model, f"retained_{name}", "unpruned", 100.0),
                (model, f"retained_{name}", "nothing left", 0.0),
            ]
    keys = ("model", "shown", "level", "value")
    return [dict(zip(keys, (*line[:3], _rounded(float(line[3]))), strict=True)) for line in lines]


def _advised(table: pd.DataFrame, levels: pd.DataFrame, cuts: list[dict[str, Any]], model: str) -> int:
    """The cut that the page shows first: the best compromise of the first recipe, else of un-healed cuts."""
    rows = parts(table, levels, model)
    if "average" in rows and not rows.empty:
        healed = rows[rows["treatment"] != PRUNED]
        rows = healed[healed["treatment"] == healed["treatment"].iloc[0]] if len(healed) else rows
        rows = [compromise(best_cuts(rows)).to_dict()]
    else:
        rows = table[table["model"] == model].tail(1).to_dict("records")
    keys = ("model", "strategy", "n", "treatment")
    return next(cut["id"] for cut in cuts if all(cut[key] == rows[0][key] for key in keys))


def _chart(strategies: dict[str, str], treatments: dict[str, dict[str, Any]]) -> alt.LayerChart:
    """The metric ``shown`` of the cuts of ``model`` against n. The page sets these and other parameters."""
    cuts = _shown_cuts()
    names, styles = list(treatments), list(treatments.values())
    colour = alt.Color("strategy:N", legend=None)
    colour = colour.scale(domain=list(strategies), range=list(strategies.values()))
    dash = alt.StrokeDash("treatment:N", legend=None).scale(domain=names, range=[s["dash"] for s in styles])
    shape = alt.Shape("treatment:N", legend=None).scale(domain=names, range=[s["shape"] for s in styles])
    x = alt.X("n:Q", title="layers removed, n").axis(format="d", tickMinStep=1, grid=False, labelFlush=False)
    y = alt.Y("value:Q", title=None).scale(zero=False, nice=True)
    nearest = alt.selection_point(
        name="near", on="pointerover", nearest=True, fields=["id"], empty=False, clear=False
    )
    points = cuts.mark_point(filled=True, opacity=1, size=55)
    picked = cuts.transform_filter("datum.id == picked")
    value = {"dy": -17, "fontSize": 12, "fontWeight": "bold"}
    chart = alt.layer(
        *_level_lines(),
        cuts.mark_rule(strokeWidth=1.2).encode(x, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour),
        cuts.mark_line(strokeWidth=1.6).encode(x, y, color=colour, strokeDash=dash),
        points.encode(x, y, color=colour, shape=shape).add_params(nearest),
        picked.mark_point(size=220, color="#222", strokeWidth=2).encode(x, y),
        picked.mark_text(**value, stroke="white", strokeWidth=4).encode(x, y, text="text:N"),
        picked.mark_text(**value).encode(x, y, text="text:N"),
    )
    chart = chart.add_params(
        *(alt.param(name=name, value=None) for name in ("model", "shown", "picked")),
        *(alt.param(name=name, value=[]) for name in ("strategies", "treatments")),
    )
    style = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#eee"}
    chart = chart.properties(width="container", height=380).configure_view(stroke=None)
    return chart.configure_axis(**style)


def _shown_cuts() -> alt.Chart:
    """The cuts that are switched on, with ``value``, the ends of its bar and both as ``text``. What retains
    less than nothing retains nothing."""
    retains = "indexof(shown, 'retained_') == 0"
    digits = f"({retains} ? '.0f' : '.3f')"
    stderr = f"isValid(datum.stderr) ? ' ± ' + format(datum.stderr, {digits}) : ''"
    return (
        alt.Chart(alt.NamedData("cuts"))
        .transform_filter("datum.model == model && isValid(datum[shown])")
        .transform_filter("indexof(strategies, datum.strategy) >= 0")
        .transform_filter("indexof(treatments, datum.treatment) >= 0")
        .transform_calculate(stderr="datum[shown + '_stderr']", least=f"{retains} ? 0 : -1 / 0")
        .transform_calculate(value="max(datum.least, datum[shown])")
        .transform_calculate(low="max(datum.least, datum[shown] - datum.stderr)")
        .transform_calculate(high="max(datum.least, datum[shown] + datum.stderr)")
        .transform_calculate(text=f"format(datum.value, {digits}) + ({stderr}) + ({retains} ? ' %' : '')")
    )


def _level_lines() -> list[alt.Chart]:
    """The levels of what is shown, as lines with their names."""
    levels = alt.Chart(alt.NamedData("levels")).encode(y=alt.Y("value:Q", title=None))
    levels = levels.transform_filter("datum.model == model && datum.shown == shown")
    name = levels.mark_text(align="right", baseline="bottom", dx=-2, dy=-1, color="#777")
    return [
        levels.mark_rule(color="#999", strokeDash=[4, 3]),
        name.encode(x=alt.value("width"), text="level:N"),
    ]
