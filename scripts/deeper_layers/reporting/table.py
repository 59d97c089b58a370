"""The results table, from the study's own files: one row per (model, strategy, n, treatment).

Beside it stand the levels (chance, majority class) that the figures draw as lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd

from ..errors import UserError
from ..pruning.blocks import FULL, Block
from ..pruning.choices import Choice, read_choices
from ..resources import resource
from ..runtime.files import read_json, replacing
from .published import Published, published_names
from .scores import PRUNED, read_result, result_path, suite_levels, suite_scores
from .sizes import MEASURED, SPEEDS, scaled, size

VARIANT = ["model", "strategy", "n", "block", "treatment"]
SIZE = ["n_layers", "layers", "fraction_removed", "parameters", "bytes", "distance"]
LEVELS = ["model", "metric", "level", "value"]

TEMPLATE = resource("table.html")


def build(
    results: str | Path,
    models: Sequence[str],
    recipes: Sequence[str] = (),
    suites: Sequence[str] = (),
    controls: Sequence[str] = (),
    c4: Sequence[str] = (),
    speed: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table and its levels, of the study in the folder ``results``.

    The table has a row for each line of a model's blocks.csv and each treatment: ``pruned`` and every one
    of ``recipes`` (see Recipe.parse; at n = 0 only ``controls``, the names of the recipes that also healed
    the full model). Columns: the variant, its size (layers left, parameters and bytes without the adapter),
    the distance of its block, then every metric beside its standard error (``NAME``, ``NAME_stderr``). A
    block that two strategies choose has a row in each, with the same numbers. Where the paper has the value
    of a metric, ``NAME_published`` and ``NAME_difference`` (ours minus theirs) follow; the suites ``c4`` are
    those whose loss is that of C4. With ``speed``, what each model's speed.csv measured follows the size.

    The levels are long: model, metric, level (``chance`` or ``majority``), value.

    Raises UserError that names the missing or unreadable file and the program that makes it.
    """
    results = Path(results)
    read = cache(read_result)  # strategies share blocks
    rows, scores, levels, theirs = [], [], [], []
    for model in models:
        folder = results / model
        manifest = read_json(_existing(folder / "checkpoints" / str(FULL) / "manifest.json", "adopt.py"))
        choices = read_choices(_existing(folder / "blocks.csv", "blocks.py"))
        paper = Published(manifest["source"]["id"])
        full = {suite: read(folder / result_path(PRUNED, FULL, suite)) for suite in suites}
        names = {suite: published_names(result, suite in c4) for suite, result in full.items()}
        speeds = read_speed(folder / "speed.csv") if speed else {}
        for choice, treatment in variants(model, choices, recipes, controls):
            measured = speeds[str(choice.block)] if speed else {}
            rows.append(describe(model, choice, treatment, manifest) | measured)
            paths = {suite: folder / result_path(treatment, choice.block, suite) for suite in suites}
            scores.append({suite: suite_scores(read(path)) for suite, path in paths.items()})
            variant = choice.strategy, choice.n, treatment
            theirs.append(
                {(s, ours): paper.value(*variant, name) for s in suites for ours, name in names[s].items()}
            )
        for suite, result in full.items():
            levels += [(model, suite, *level) for level in suite_levels(result)]
    column = _columns([(suite, name) for row in scores for suite in row for name in row[suite]])
    ends = {name: ["", "_stderr"] for name in column.values()}
    for row, found, paper_has in zip(rows, scores, theirs, strict=True):
        row |= _measured(found, column)
        for key, value in paper_has.items():
            if value is not None:
                name = column[key]
                row |= {f"{name}_published": value, f"{name}_difference": row[name] - value}
                ends[name] = ["", "_stderr", "_published", "_difference"]
    columns = VARIANT + SIZE + (MEASURED if speed else [])
    table = pd.DataFrame(rows, columns=columns + [name + end for name in ends for end in ends[name]])
    levels = [(model, column[suite, name], *level) for model, suite, name, *level in levels]
    return table, pd.DataFrame(levels, columns=LEVELS)


@dataclass(frozen=True)
class Recipe:
    """A healing recipe and the cuts that it healed, of which models; None stands for all."""

    name: str
    ns: frozenset[int] | None = None
    strategies: frozenset[str] | None = None
    models: frozenset[str] | None = None

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """``NAME:N,N,...:STRATEGY,...:MODEL,...``; a part that is empty or left out means all."""
        name, ns, strategies, models = (text + ":::").split(":")[:4]
        try:
            return cls(
                name,
                frozenset(map(int, ns.split(","))) if ns else None,
                frozenset(strategies.split(",")) if strategies else None,
                frozenset(models.split(",")) if models else None,
            )
        except ValueError:
            raise UserError(f"{text!r} is no recipe: write NAME, or NAME:2,4 for the n it healed") from None

    def healed(self, model: str, choices: Iterable[Choice]) -> set[Block]:
        """The blocks of a model that this recipe healed, n = 0 apart."""
        return {
            choice.block
            for choice in choices
            if choice.n
            and (self.models is None or model in self.models)
            and (self.ns is None or choice.n in self.ns)
            and (self.strategies is None or choice.strategy in self.strategies)
        }


def variants(
    model: str, choices: Sequence[Choice], recipes: Sequence[str], controls: Sequence[str]
) -> Iterator[tuple[Choice, str]]:
    """Every (choice, treatment) of a model that the table has a row for."""
    healed: dict[str, set[Block]] = {}
    for recipe in map(Recipe.parse, recipes):
        healed.setdefault(recipe.name, set()).update(recipe.healed(model, choices))
    for name in controls:
        if name not in healed:
            raise UserError(f"--controls: {name!r} is not among --recipes")
        healed[name].add(FULL)
    for choice in choices:
        yield choice, PRUNED
        yield from ((choice, name) for name, blocks in healed.items() if choice.block in blocks)


def describe(model: str, choice: Choice, treatment: str, manifest: dict) -> dict:
    """The columns that need no evaluation; sizes follow from the manifest of the full model alone."""
    return {
        "model": model,
        "strategy": choice.strategy,
        "n": choice.n,
        "block": str(choice.block),
        "treatment": treatment,
        **size(manifest, choice.block),
        "distance": choice.distance,
    }


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
    """The score that knows nothing; None where it is not known."""
    found = levels[(levels["model"] == model) & (levels["metric"] == metric) & (levels["level"] == "chance")]
    return None if found.empty else found["value"].iloc[0]


def is_loss(table: pd.DataFrame, metric: str) -> bool:
    """Whether a metric is a held-out loss, which is better when smaller, or one divided by ln V."""
    name = metric.removesuffix("normalised_loss").removesuffix("loss")
    return f"{name}loss" in table and f"{name}normalised_loss" in table


def learned(table: pd.DataFrame, levels: pd.DataFrame, model: str) -> list[str]:
    """The metrics that the unpruned model does better than chance, by more than 3 standard errors; the
    normalised loss apart, which is the loss again."""
    return [metric for metric, why in judged(table, levels, model).items() if why is None]


def judged(table: pd.DataFrame, levels: pd.DataFrame, model: str) -> dict[str, str | None]:
    """Every metric but the normalised loss, with the reason why nothing can be said of what is left of it, or
    None where that can be said (see ``learned``)."""
    found, full = {}, unpruned(table, model)
    for metric in metrics(table):
        level = chance(levels, model, metric)
        if metric.endswith("normalised_loss"):
            continue
        if level is None:
            found[metric] = "its chance is not known"
            continue
        above = level - full[metric] if is_loss(table, metric) else full[metric] - level
        no_better = not above > 3 * full[f"{metric}_stderr"]
        found[metric] = f"no better than chance, {level:.3f}" if no_better else None
    return found


def retained(
    rows: pd.DataFrame, metric: str, full: pd.Series, level: float, loss: bool = False
) -> pd.DataFrame:
    """``rows`` with the metric and its standard error as the part that is left of what the unpruned model
    (``full``) has, both taken as exact: 1 is the unpruned model.

    Of a score, that is the part of the way from chance (``level``) to the unpruned model: 0 is chance. Of a
    ``loss``, 1 less the part by which it has grown: 0 is twice the unpruned loss; or, where chance is nearer
    than that, the part of the way from it. Chance is so far from a trained model that a useless one would
    have most of the way left.
    """
    whole = -min(full[metric], level - full[metric]) if loss else full[metric] - level
    stderr = f"{metric}_stderr"
    left = 1 + (rows[metric] - full[metric]) / whole
    return rows.assign(**{metric: left, stderr: rows[stderr] / abs(whole)})


def read_speed(path: Path) -> dict[str, dict[str, float]]:
    """{block: what was measured} of a speed.csv."""
    return pd.read_csv(_existing(path, "speed.py"), index_col="block")[MEASURED].to_dict("index")


def read_table(path: str | Path) -> pd.DataFrame:
    """A table.csv or levels.csv. Raises UserError when it is missing."""
    return pd.read_csv(_existing(Path(path), "table.py"))


def _existing(path: Path, program: str) -> Path:
    if not path.exists():
        raise UserError(f"{path} is missing: make it with scripts/{program}, or let snakemake do it")
    return path


def _columns(measured: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """{(suite, name): column}: the name, or SUITE_NAME for a name that several suites measure."""
    keys = list(dict.fromkeys(measured))
    names = [name for _, name in keys]
    return {(suite, name): name if names.count(name) == 1 else f"{suite}_{name}" for suite, name in keys}


def _measured(found: dict[str, dict], column: dict[tuple[str, str], str]) -> dict[str, float]:
    """{column: value} of one row, from {suite: {name: (value, standard error)}}."""
    cells = {}
    for suite, scores in found.items():
        for name, (value, stderr) in scores.items():
            cells[column[suite, name]] = value
            cells[f"{column[suite, name]}_stderr"] = stderr
    return cells


# Writing


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as the file's ending says: .csv (every digit that counts), .md or .html (to be read)."""
    writers = {".csv": to_csv, ".md": to_markdown, ".html": to_html}
    ending = Path(path).suffix
    if ending not in writers:
        raise UserError(f"cannot write a table to {path}: its name must end in {', '.join(writers)}")
    with replacing(path) as aside:
        aside.write_text(writers[ending](table))


def to_csv(table: pd.DataFrame) -> str:
    """Eight significant digits, so that equal runs give equal files."""
    return table.to_csv(index=False, float_format="%.8g", lineterminator="\n")


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table of ``readable`` cells; text to the left, numbers to the right."""
    heads, rows = readable(table)
    rules = ["---" if head in VARIANT and head != "n" else "---:" for head in heads]
    lines = [heads, rules] + [[text for text, _ in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_html(table: pd.DataFrame) -> str:
    """A page that stands alone (no network): the table, to sort, filter and download as CSV."""
    heads, rows = readable(table)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(heads=heads, rows=rows, texts=set(VARIANT) - {"n"}, csv=to_csv(table))


def readable(table: pd.DataFrame) -> tuple[list[str], list[list[tuple[str, str | float]]]]:
    """Column heads and rows of (text, value to sort by): with units, rounded, value ± standard error. The
    uncut model, which a table has for each strategy, is there once, by its own name."""
    if "n" in table and "treatment" in table:
        table = _once(table)
    heads = {name: name for name in [*VARIANT, "layers"]} | {"fraction_removed": "removed"}
    for name in sorted(metrics(table), key=lambda name: not is_loss(table, name)):
        shown = [name, f"{name}_published", f"{name}_difference"]
        heads |= {column: column.replace("_", " ") for column in shown if column in table}
    heads |= {"parameters": "parameters", "bytes": "size", "memory_bytes": "memory"}
    heads |= {speed: f"{speed} (tokens/s)" for speed in SPEEDS} | {"distance": "distance"}
    heads = {name: head for name, head in heads.items() if name in table}
    rows = [[(_cell(row, name), row[name]) for name in heads] for row in table.to_dict("records")]
    return list(heads.values()), rows


def _once(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which each treatment of the uncut model has one row, without a strategy."""
    uncut = table["n"] == 0
    table = table[~(uncut & table.duplicated(["model", "n", "treatment"]))]
    uncut = table["n"] == 0
    return table.assign(
        strategy=table["strategy"].mask(uncut, ""),
        treatment=table["treatment"].mask(uncut & (table["treatment"] == PRUNED), "unpruned"),
    )


def _cell(row: dict, name: str) -> str:
    value = row[name]
    match name:
        case "fraction_removed":
            return f"{100 * value:.0f} %"
        case "parameters":
            return scaled(value, ["", " k", " M", " G"])
        case "bytes" | "memory_bytes":
            return scaled(value, [" B", " kB", " MB", " GB"])
        case "prefill" | "decode":
            return scaled(value, ["", " k"])
    if isinstance(value, str | int):
        return str(value)
    if math.isnan(value):
        return ""
    if name.endswith("_difference"):
        return f"{value:+.3f}"
    stderr = row.get(f"{name}_stderr", math.nan)
    return f"{value:.3f}" if math.isnan(stderr) else f"{value:.3f} ± {stderr:.3f}"
