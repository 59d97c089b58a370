"""The answer to the question of the study: how many layers can go, which, what that costs and saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from ..layout import PRUNED
from ..pruning.layer_set import LayerSet
from .metrics import above_chance, chance, is_loss, omitted, retained, unpruned
from .text import and_list, layers_in_words, markdown_table, si

LOSSES = (0.01, 0.05, 0.1, 0.2)  # of quality, for which the summary tells how many layers can go


def kept(table: pd.DataFrame, levels: pd.DataFrame, model: str, tolerance: float) -> pd.DataFrame:
    """The cuts of a model, with a column ``retained_METRIC`` (see metrics.retained) and ``keeps_METRIC`` for
    each metric that the unpruned model does better than chance, and ``worst``, the least retained of any.

    A cut keeps a metric if at least 1 - ``tolerance`` is retained. Measured values are compared; their
    standard errors play no part.
    """
    full = unpruned(table, model)
    rows = table[(table["model"] == model) & (table["n"] > 0)]
    names = above_chance(table, levels, model)
    for metric in names:
        level, loss = chance(levels, model, metric), is_loss(table, metric)
        part = retained(rows, metric, full, level, loss)[metric]
        rows = rows.assign(**{f"retained_{metric}": part, f"keeps_{metric}": part >= 1 - tolerance})
    return rows.assign(worst=rows[[f"retained_{metric}" for metric in names]].min(axis=1)) if names else rows


def largest(rows: pd.DataFrame, column: str, least: float) -> pd.Series | None:
    """The cut of most layers with at least so much in a column; of several, the first in the table."""
    rows = rows[rows[column] >= least]
    return None if rows.empty else rows.loc[rows["n"].idxmax()]


def best(rows: pd.DataFrame, metrics: list[str]) -> pd.Series | None:
    """The cut that keeps the most metrics, and of those the one of most layers; None if none keeps any."""
    count = rows[[f"keeps_{metric}" for metric in metrics]].sum(axis=1)
    rows = rows[(count == count.max()) & (count > 0)]
    return None if rows.empty else rows.loc[rows["n"].idxmax()]


def summary(
    table: pd.DataFrame, levels: pd.DataFrame, tolerance: float, command: str, made: Mapping[str, str]
) -> str:
    """Markdown: for each model and treatment what the best cut of each n retains, how many layers can go for
    so much loss of quality, and what the best cut saves. ``command`` is what exports a checkpoint of the
    study (it gets ``--config``), ``made`` says of each model what it was measured with."""
    lines = [
        "# What can be removed",
        "",
        "In per cent of the unpruned model: 0 % of a score is chance, 0 % of a loss is twice the unpruned",
        "one, or chance if that is nearer. All strategies compete; of each n the cut is shown whose worst",
        f"measure retains most. What retains at least {100 * (1 - tolerance):g} % is kept, as measured.",
    ]
    for model in table["model"].unique():
        full, rows = unpruned(table, model), kept(table, levels, model, tolerance)
        lines += ["", f"## {model}: {full['n_layers']} layers, {si(full['parameters'])} parameters", ""]
        lines += [made[model]] if model in made else []
        reasons = omitted(table, levels, model)
        out = [f"{metric} ({_value(full, metric)}: {why})" for metric, why in reasons.items() if why]
        lines += ["", f"Left out: {and_list(out)}."] if out else []
        metrics = [metric for metric, why in reasons.items() if why is None]
        if not metrics:
            lines += ["No metric is better than chance: nothing to keep."]
            continue
        for treatment in rows["treatment"].unique():
            cuts = rows[rows["treatment"] == treatment]
            lines += ["", f"### {_treatment(treatment)}", ""]
            lines += [*_by_n(cuts, metrics), "", *_by_loss(cuts, metrics, full), ""]
            lines += _advice(cuts, rows, metrics, full, command)
    return "\n".join(lines) + "\n"


def _by_n(rows: pd.DataFrame, metrics: list[str]) -> list[str]:
    """What the best cut of each n retains."""
    cells = []
    for n, same in rows.groupby("n"):
        row = same.loc[same["worst"].idxmax()] if same["worst"].notna().any() else same.iloc[0]
        cells.append([str(n), _layers(row), row["strategy"], *_parts(row, metrics)])
    heads = ["layers removed", "drop", "chosen by", *metrics]
    return markdown_table(heads, cells, right={"layers removed", *metrics})


def _by_loss(rows: pd.DataFrame, metrics: list[str], full: pd.Series) -> list[str]:
    """How many layers can go for so much loss of quality."""
    cells = []
    for metric in [*metrics, *(["worst"] if len(metrics) > 1 else [])]:
        column = metric if metric == "worst" else f"retained_{metric}"
        cuts = [largest(rows, column, 1 - loss) for loss in LOSSES]
        name, value = ("all of them", "") if metric == "worst" else (metric, _value(full, metric))
        cells.append([name, value, *("0" if cut is None else str(cut["n"]) for cut in cuts)])
    numbers = ["unpruned", *(f"{100 * loss:g} %" for loss in LOSSES)]
    return markdown_table(["layers that can go, if so much may be lost", *numbers], cells, right=numbers)


def _advice(
    rows: pd.DataFrame, others: pd.DataFrame, metrics: list[str], full: pd.Series, command: str
) -> Iterator[str]:
    """What the best cut keeps, loses and saves, and how to have it; beside one that loses something, the cut
    of any treatment (``others``) that keeps all; the nearest miss if nothing keeps anything."""
    row = best(rows, metrics)
    if row is None:
        near = rows.loc[rows[[f"retained_{metric}" for metric in metrics]].max(axis=1).idxmax()]
        parts = [f"{part} of {metric}" for metric, part in zip(metrics, _parts(near, metrics), strict=True)]
        retains = f"Without {_without(near)}, the nearest, it retains {and_list(parts)}."
        yield f"No cut keeps any of them. {retains}"
        return
    keeps = [metric for metric in metrics if row[f"keeps_{metric}"]]
    loses = [metric for metric in metrics if not row[f"keeps_{metric}"]]
    parts = [
        f"{metric}, of which {part} is left" for metric, part in zip(loses, _parts(row, loses), strict=True)
    ]
    text = f"Without {_without(row)} the model keeps {and_list(keeps)}"
    yield f"{text} and **loses** {'; '.join(parts)}." if loses else f"{text}."
    whole = others[others[[f"keeps_{metric}" for metric in metrics]].all(axis=1)]
    if loses and not whole.empty:
        other = whole.loc[whole["n"].idxmax()]
        yield f"What keeps all of them: without {_without(other)}, {_treatment(other['treatment'])}."
    elif loses:
        yield "No cut of this model, healed or not, keeps all of them."
    saved = [f"{100 * row['fraction_removed']:.0f} % of the layers"]
    for column, name in SAVED.items():
        if column in row and pd.notna(row[column]):
            saved.append(f"{100 * (1 - row[column] / full[column]):.0f} % of the {name}")
    yield f"Removing {_without(row)} saves {and_list(saved)}."
    if "decode" in row and pd.notna(row["decode"]):
        faster = [f"{row[name] / full[name]:.2f} times as fast {doing}" for name, doing in FASTER.items()]
        yield f"It is {and_list(faster)}."
    yield "As a checkpoint that transformers loads:"
    yield ""
    yield "```bash"
    yield f"{command} --config 'export=[{row['model']}/{row['treatment']}/{row['block']}]'"
    yield "```"


SAVED = {"parameters": "parameters", "bytes": "bytes on disk", "memory_bytes": "memory"}
FASTER = {"prefill": "in reading a prompt", "decode": "in writing"}


def _layers(row: pd.Series) -> str:
    return layers_in_words(LayerSet.parse(row["block"]))


def _without(row: pd.Series) -> str:
    return f"layer{'s' if row['n'] > 1 else ''} {_layers(row)}"


def _treatment(name: str) -> str:
    return "un-healed" if name == PRUNED else name


def _parts(row: pd.Series, metrics: list[str]) -> list[str]:
    """What a cut retains of each metric, in per cent; what is worse than nothing is nothing."""
    parts = [row[f"retained_{metric}"] for metric in metrics]
    return ["" if pd.isna(part) else f"{100 * max(0, part):.0f} %" for part in parts]


def _value(row: pd.Series, metric: str) -> str:
    return f"{row[metric]:.3f} ± {row[f'{metric}_stderr']:.3f}"
