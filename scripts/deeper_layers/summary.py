"""The answer to the question of the study: how many layers can go, which, what that costs and saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from .blocks import Block
from .sizes import scaled
from .table import PRUNED, chance, learned, retained, unpruned


def kept(table: pd.DataFrame, levels: pd.DataFrame, model: str, tolerance: float) -> pd.DataFrame:
    """The cuts of a model, with a column ``retained_METRIC`` and ``keeps_METRIC`` for each metric that the
    unpruned model does better than chance.

    Retained of a score is the part of the way from chance to the unpruned model that is left; of a loss, 1
    less the part by which it has grown (chance is so far off that a useless model would retain most). A cut
    keeps a metric if that is at least 1 - ``tolerance``. Measured values are compared; their standard errors
    play no part.
    """
    full = unpruned(table, model)
    rows = table[(table["model"] == model) & (table["n"] > 0)]
    for metric in learned(table, levels, model):
        level = chance(levels, model, metric)
        if level > full[metric]:
            part = 2 - rows[metric] / full[metric]
        else:
            part = retained(rows, metric, full, level)[metric]
        rows = rows.assign(**{f"retained_{metric}": part, f"keeps_{metric}": part >= 1 - tolerance})
    return rows


def largest(rows: pd.DataFrame, metric: str) -> pd.Series | None:
    """The cut of most layers that keeps a metric; of several, the first in the table."""
    rows = rows[rows[f"keeps_{metric}"]]
    return None if rows.empty else rows.loc[rows["n"].idxmax()]


def best(rows: pd.DataFrame, metrics: list[str]) -> pd.Series | None:
    """The cut that keeps the most metrics, and of those the one of most layers; None if none keeps any."""
    count = rows[[f"keeps_{metric}" for metric in metrics]].sum(axis=1)
    rows = rows[(count == count.max()) & (count > 0)]
    return None if rows.empty else rows.loc[rows["n"].idxmax()]


def summary(
    table: pd.DataFrame, levels: pd.DataFrame, tolerance: float, command: str, made: Mapping[str, str]
) -> str:
    """Markdown: for each model and treatment the largest n that keeps each metric, and what the best cut
    saves. ``command`` is what exports a checkpoint of the study (it gets ``--config``), ``made`` says of
    each model what it was measured with."""
    lines = [
        "# What can be removed",
        "",
        f"A cut keeps a score if it is at least {100 * (1 - tolerance):g} % as far above chance as the",
        f"unpruned model, and a loss if that has grown by at most {100 * tolerance:g} %, as measured. All",
        "strategies compete. What the unpruned model does not do better than chance (3 standard errors) is",
        "left out.",
    ]
    for model in table["model"].unique():
        full, rows = unpruned(table, model), kept(table, levels, model, tolerance)
        lines += ["", f"## {model}: {full['n_layers']} layers, {_size(full['parameters'])} parameters", ""]
        lines += [made[model]] if model in made else []
        metrics = [name.removeprefix("keeps_") for name in rows if name.startswith("keeps_")]
        if not metrics:
            lines += ["No metric is better than chance: nothing to keep."]
            continue
        for treatment in rows["treatment"].unique():
            some = rows[rows["treatment"] == treatment]
            lines += ["", f"### {'un-healed' if treatment == PRUNED else treatment}", ""]
            lines += _table(some, metrics, full)
            lines += ["", *_advice(some, metrics, full, command)]
    return "\n".join(lines) + "\n"


def _table(rows: pd.DataFrame, metrics: list[str], full: pd.Series) -> Iterator[str]:
    yield "| metric | unpruned | most layers | drop | chosen by | value | retained |"
    yield "|---|---:|---:|---|---|---:|---:|"
    for metric in metrics:
        row = largest(rows, metric)
        before = _value(full, metric)
        if row is None:
            yield f"| {metric} | {before} | 0 | | | | |"
            continue
        part = f"{100 * row[f'retained_{metric}']:.0f} %"
        cells = [metric, before, row["n"], _layers(row), row["strategy"], _value(row, metric), part]
        yield f"| {' | '.join(map(str, cells))} |"


def _advice(rows: pd.DataFrame, metrics: list[str], full: pd.Series, command: str) -> Iterator[str]:
    """What the best cut keeps and saves, and how to have it."""
    row = best(rows, metrics)
    if row is None:
        yield "No cut keeps any of them."
        return
    keeps = [metric for metric in metrics if row[f"keeps_{metric}"]]
    loses = [metric for metric in metrics if not row[f"keeps_{metric}"]]
    yield f"Without layer{'s' if row['n'] > 1 else ''} {_layers(row)} the model keeps {_words(keeps)}" + (
        f" and loses {_words(loses)}." if loses else "."
    )
    saved = [f"{100 * row['fraction_removed']:.0f} % of the layers"]
    for name, what in (("parameters", "parameters"), ("bytes", "bytes on disk"), ("memory_bytes", "memory")):
        if name in row and pd.notna(row[name]):
            saved.append(f"{100 * (1 - row[name] / full[name]):.0f} % of the {what}")
    yield f"It saves {_words(saved)}."
    if "decode" in row and pd.notna(row["decode"]):
        faster = [f"{row[name] / full[name]:.2f} times as fast {what}" for name, what in FASTER.items()]
        yield f"It is {_words(faster)}."
    yield "As a checkpoint that transformers loads:"
    yield ""
    yield "```bash"
    yield f"{command} --config 'export=[{row['model']}/{row['treatment']}/{row['block']}]'"
    yield "```"


FASTER = {"prefill": "in reading a prompt", "decode": "in writing"}


def _layers(row: pd.Series) -> str:
    block = Block.parse(row["block"])
    return str(block.first) if block.n == 1 else f"{block.first} to {block.last}"


def _value(row: pd.Series, metric: str) -> str:
    return f"{row[metric]:.3f} ± {row[f'{metric}_stderr']:.3f}"


def _size(parameters: float) -> str:
    return scaled(parameters, ["", " k", " M", " G"])


def _words(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
