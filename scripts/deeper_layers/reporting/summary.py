"""The answer to the question of the study: how many layers can go, which, what that costs and saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from ..layout import PRUNED
from ..pruning.layer_set import LayerSet
from .metrics import omitted, unpruned
from .ranks import ranks
from .text import and_list, layers_in_words, markdown_table, si
from .tradeoff import Break, best_cuts, compromise, control, find_break, parts, with_average, worse_with_fewer

LOSSES = (0.01, 0.05, 0.1, 0.2)  # of quality, for which the summary tells how many layers can go


def largest(rows: pd.DataFrame, column: str, least: float) -> pd.Series | None:
    """The cut of most layers with at least so much in a column; of several, the first in the table."""
    rows = rows[rows[column] >= least]
    return None if rows.empty else rows.loc[rows["n"].idxmax()]


def summary(
    table: pd.DataFrame, levels: pd.DataFrame, tolerance: float, command: str, made: Mapping[str, str]
) -> str:
    """Markdown: for each model and treatment what the best cut of each n retains, how many layers can go for
    so much loss of quality, where that breaks, and what the best cut saves. ``command`` is what exports a
    checkpoint of the study (it gets ``--config``), ``made`` says of each model what it was measured with."""
    lines = [
        "# What can be removed",
        "",
        "In per cent of the unpruned model, ± one standard error: 0 % of a score is chance, 0 % of a loss is",
        "twice the unpruned one, or chance if that is nearer. All strategies compete: of each n the cut is",
        "shown that retains most on average.",
    ]
    for model in table["model"].unique():
        full, every = unpruned(table, model), parts(table, levels, model, uncut=True)
        rows = every[every["n"] > 0]
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
            shown = best_cuts(cuts)
            breaks = {metric: find_break(shown, metric) for metric in metrics}
            lines += ["", f"### {_treatment(treatment)}", ""]
            uncut = control(every, treatment)
            lines += [
                *_by_n(pd.concat([uncut, shown]), metrics),
                "",
                *_by_loss(cuts, metrics, full, breaks),
                "",
            ]
            lines += [*_notes(shown, metrics, breaks), ""]
            lines += _advice(cuts, rows, breaks, full, tolerance, command)
        lines += _ranked(rows, metrics)
    return "\n".join(lines) + "\n"


def _ranked(rows: pd.DataFrame, metrics: list[str]) -> Iterator[str]:
    """The strategies un-healed and the treatments, each over all that they have in common, by mean rank."""
    unhealed = rows[rows["treatment"] == PRUNED]
    for of, found, over in (
        ("strategy", ranks(unhealed, "strategy", ["n"], metrics), "numbers of layers"),
        ("treatment", ranks(rows, "treatment", ["strategy", "n"], metrics), "cuts"),
    ):
        if found.empty:
            continue
        yield from ("", f"### By {of}: mean rank", "")
        table = [
            [_treatment(row[of]), f"{row['rank']:.1f}" + _error(row["stderr"])] for _, row in found.iterrows()
        ]
        yield from markdown_table([of, "mean rank"], table, right=["mean rank"])
        count, values = found["cells"].iloc[0], found[of].nunique()
        yield ""
        yield (
            f"Of {values}, 1 is best: mean over {and_list(metrics)} and over the {count} {over} that all have"
            f"{', un-healed' if of == 'strategy' else ''}; ± one standard error over these."
        )


def _error(stderr: float) -> str:
    return "" if pd.isna(stderr) else f" ± {stderr:.1f}"


def _by_n(cuts: pd.DataFrame, metrics: list[str]) -> list[str]:
    """What the best cut of each n retains, and the uncut model if it was healed too."""
    columns = [f"retained_{metric}" for metric in metrics]
    heads = ["layers removed", "drop", "chosen by", *metrics]
    if len(metrics) > 1:
        columns, heads = [*columns, "average"], [*heads, "average"]
    if "ratio" in cuts:
        columns, heads = [*columns, "ratio"], [*heads, "mean ratio"]
    cells = [
        [
            str(row["n"]),
            *((_layers(row), row["strategy"]) if row["n"] else ("none", "(control)")),
            *(_part(row, column) for column in columns),
        ]
        for _, row in cuts.iterrows()
    ]
    return markdown_table(heads, cells, right=set(heads) - {"drop", "chosen by"})


def _by_loss(
    rows: pd.DataFrame, metrics: list[str], full: pd.Series, breaks: dict[str, Break | None]
) -> list[str]:
    """How many layers can go for so much loss of quality, and after how many the curve breaks."""
    first = min((at.before for at in breaks.values() if at), default=None)
    cells = []
    for metric in [*metrics, *(["worst"] if len(metrics) > 1 else [])]:
        if metric == "worst":
            column, name, value, before = metric, "all of them", "", first
        else:
            column, name, value = f"retained_{metric}", metric, _value(full, metric)
            before = at.before if (at := breaks[metric]) else None
        cuts = [largest(rows, column, 1 - loss) for loss in LOSSES]
        numbers = ["0" if cut is None else str(cut["n"]) for cut in cuts]
        cells.append([name, value, *numbers, "none" if before is None else str(before)])
    heads = ["unpruned", *(f"{100 * loss:g} %" for loss in LOSSES), "breaks after"]
    return markdown_table(["layers that can go, if so much may be lost", *heads], cells, right=heads)


def _notes(cuts: pd.DataFrame, metrics: list[str], breaks: dict[str, Break | None]) -> Iterator[str]:
    """How much is lost where the curves break, and which of the best cuts one of more layers beats."""
    places: dict[tuple[int, int], list[str]] = {}
    for metric, at in breaks.items():
        if at:
            lost = f"{100 * at.lost:.0f} ± {100 * at.stderr:.0f} % of {metric}"
            places.setdefault((at.before, at.after), []).append(lost)
    for (before, after), lost in sorted(places.items()):
        verb = "are" if len(lost) > 1 else "is"
        yield f"**Between n = {before} and {after} it breaks**: {and_list(lost)} {verb} lost there for good."
    beaten: dict[tuple[str, str], list[str]] = {}
    for row, other, worse in worse_with_fewer(cuts, metrics):
        one, two = (f"n = {cut['n']} ({_layers(cut)})" for cut in (row, other))
        beaten.setdefault((two, and_list(worse)), []).append(one)
    for (better, worse), several in beaten.items():
        yield f"{and_list(several)} {'are' if len(several) > 1 else 'is'} worse than {better} in {worse}."


def _advice(
    rows: pd.DataFrame,
    others: pd.DataFrame,
    breaks: dict[str, Break | None],
    full: pd.Series,
    tolerance: float,
    command: str,
) -> Iterator[str]:
    """What the largest cut that keeps all metrics saves, what compromises lose and save, and how to have
    them. Where nothing keeps all, the cut of any treatment (``others``) that does."""
    row, within, metrics = largest(rows, "worst", 1 - tolerance), f"{100 * tolerance:g} %", list(breaks)
    advised = []
    if row is not None:
        yield f"Without {_without(row)} the model keeps {and_list(metrics)} within {within}, as measured."
        yield from _saved(row, full)
        advised.append(row)
    else:
        yield f"No cut keeps {and_list(metrics)} within {within}."
        whole = largest(others, "worst", 1 - tolerance)
        if whole is not None:
            yield f"What does: without {_without(whole)}, {_treatment(whole['treatment'])}."
    for title, cut in _compromises(rows, breaks):
        if all(cut["n"] > other["n"] for other in advised):
            retains = and_list([f"{_part(cut, f'retained_{metric}')} of {metric}" for metric in metrics])
            left = f"{100 * (1 - cut['fraction_removed']):.0f} % of the layers"
            yield f"**{title}** is without {_without(cut)}: with {left} it retains {retains}."
            yield from _saved(cut, full)
            advised.append(cut)
    yield f"As {'a checkpoint' if len(advised) == 1 else 'checkpoints'} that transformers loads:"
    yield ""
    yield "```bash"
    for row in advised:
        yield f"{command} --config 'export=[{row['model']}/{row['treatment']}/{row['block']}]'"
    yield "```"


def _compromises(rows: pd.DataFrame, breaks: dict[str, Break | None]) -> Iterator[tuple[str, pd.Series]]:
    """The best compromise, and that of the metrics that do not break with the first layers, with titles."""
    yield "The best compromise", compromise(best_cuts(rows))
    lost = [metric for metric, at in breaks.items() if at and at.before == 0]
    if last := [metric for metric in breaks if lost and metric not in lost]:
        yield f"If {and_list(lost)} may be lost, the best", compromise(best_cuts(with_average(rows, last)))


def _saved(row: pd.Series, full: pd.Series) -> Iterator[str]:
    """What a cut saves."""
    saved = [f"{100 * row['fraction_removed']:.0f} % of the layers"]
    for column, name in SAVED.items():
        if column in row and pd.notna(row[column]):
            saved.append(f"{100 * (1 - row[column] / full[column]):.0f} % of the {name}")
    yield f"Removing {_without(row)} saves {and_list(saved)}."
    if "decode" in row and pd.notna(row["decode"]):
        faster = [f"{row[name] / full[name]:.2f} times as fast {doing}" for name, doing in FASTER.items()]
        yield f"It is {and_list(faster)}."


SAVED = {"parameters": "parameters", "bytes": "bytes on disk", "memory_bytes": "memory"}
FASTER = {"prefill": "in reading a prompt", "decode": "in writing"}


def _layers(row: pd.Series) -> str:
    return layers_in_words(LayerSet.parse(row["block"]))


def _without(row: pd.Series) -> str:
    return f"layer{'s' if row['n'] > 1 else ''} {_layers(row)}"


def _treatment(name: str) -> str:
    return "un-healed" if name == PRUNED else name


def _part(row: pd.Series, column: str) -> str:
    """What a cut retains, in per cent; what is worse than nothing is nothing."""
    part, stderr = row[column], row[f"{column}_stderr"]
    return "" if pd.isna(part) else f"{100 * max(0, part):.0f} ± {100 * stderr:.0f} %"


def _value(row: pd.Series, metric: str) -> str:
    stderr = row[f"{metric}_stderr"]
    return f"{row[metric]:.3f}" + ("" if pd.isna(stderr) else f" ± {stderr:.3f}")
