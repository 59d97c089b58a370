"""The results table, gathered from the study's own files: one row per (model, strategy, n, treatment).

The levels (chance, majority class), which figures draw as lines, are a table of their own. ``metrics`` reads
both tables, ``formats`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from ..checkpoints.cut_size import cut_size
from ..layout import FULL, PRUNED, Layout
from ..pruning.choices import Choice, read_choices
from ..runtime.files import read_json
from .columns import LEVELS, MEASURED, SIZE, VARIANT
from .contents import Contents
from .published import Published, published_names
from .scores import existing, read_result, suite_levels, suite_scores


def build(results: str | Path, contents: Contents) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table and its levels, of the study in the folder ``results`` that holds ``contents``.

    The table has a row for each line of a model's blocks.csv and each treatment: ``pruned``, and every recipe
    that healed its block. Columns: the variant, its size (layers left, parameters and bytes without the
    adapter), the distance of its block, then every metric beside its standard error (``NAME``,
    ``NAME_stderr``). A block that two strategies choose has a row in each, with the same numbers. Where the
    paper has the value of a metric, ``NAME_published`` and ``NAME_difference`` (ours minus theirs) follow.
    If speed was measured, what each model's speed.csv says follows the size.

    The levels are long: model, metric, level (``chance`` or ``majority``), value.

    Raises UserError that names the missing or unreadable file and the program that makes it.
    """
    paths, suites, ask = Layout(str(results)), contents.suites, contents.metrics.get
    read = cache(read_result)  # strategies share blocks
    rows, scores, levels, theirs = [], [], [], []
    for model in contents.models:
        manifest = read_json(existing(Path(paths.full(model)), "adopt.py"))
        choices = read_choices(existing(Path(paths.blocks(model)), "blocks.py"))
        choices = [choice for choice in choices if choice.strategy in contents.strategies]
        paper = Published(manifest["source"]["id"])
        full = {suite: read(Path(paths.result(PRUNED, FULL, suite, model))) for suite in suites}
        names = {suite: published_names(result, suite in contents.c4) for suite, result in full.items()}
        speeds = read_speed(Path(paths.speed(model))) if contents.speed else {}
        healed = {recipe: blocks[model] for recipe, blocks in contents.healed.items() if model in blocks}
        for choice, treatment in variants(choices, healed):
            block = str(choice.block)
            rows.append(describe(model, choice, treatment, manifest) | speeds.get(block, {}))
            files = {suite: Path(paths.result(treatment, block, suite, model)) for suite in suites}
            scores.append({suite: suite_scores(read(path), ask(suite)) for suite, path in files.items()})
            variant = choice.strategy, choice.n, treatment
            theirs.append(
                {(s, ours): paper.value(*variant, name) for s in suites for ours, name in names[s].items()}
            )
        for suite, result in full.items():
            levels += [(model, suite, *level) for level in suite_levels(result, ask(suite))]
    column = _columns([(suite, name) for row in scores for suite in row for name in row[suite]])
    ends = {name: ["", "_stderr"] for name in column.values()}
    for row, measured, paper_has in zip(rows, scores, theirs, strict=True):
        row |= _measured(measured, column)
        for key, value in paper_has.items():
            if value is not None:
                name = column[key]
                row |= {f"{name}_published": value, f"{name}_difference": row[name] - value}
                ends[name] = ["", "_stderr", "_published", "_difference"]
    columns = VARIANT + SIZE + (MEASURED if contents.speed else [])
    table = pd.DataFrame(rows, columns=columns + [name + end for name in ends for end in ends[name]])
    levels = [(model, column[suite, name], *level) for model, suite, name, *level in levels]
    return table, pd.DataFrame(levels, columns=LEVELS)


def variants(choices: Iterable[Choice], healed: Mapping[str, Sequence[str]]) -> Iterator[tuple[Choice, str]]:
    """Every (choice, treatment) of a model that the table has a row for; ``healed`` maps each recipe to the
    names of the blocks that it healed."""
    for choice in choices:
        yield choice, PRUNED
        yield from ((choice, recipe) for recipe, blocks in healed.items() if str(choice.block) in blocks)


def describe(model: str, choice: Choice, treatment: str, manifest: dict) -> dict:
    """The columns that need no evaluation; sizes follow from the manifest of the full model alone."""
    return {
        "model": model,
        "strategy": choice.strategy,
        "n": choice.n,
        "block": str(choice.block),
        "treatment": treatment,
        **cut_size(manifest, choice.block),
        "distance": choice.distance,
    }


def read_speed(path: Path) -> dict[str, dict[str, float]]:
    """{block: what was measured} of a speed.csv."""
    return pd.read_csv(existing(path, "measure_speed.py"), index_col="block")[MEASURED].to_dict("index")


def _columns(measured: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """{(suite, name): column}: the name, or SUITE_NAME for a name that several suites measure."""
    keys = list(dict.fromkeys(measured))
    names = [name for _, name in keys]
    return {(suite, name): name if names.count(name) == 1 else f"{suite}_{name}" for suite, name in keys}


def _measured(measured: dict[str, dict], column: dict[tuple[str, str], str]) -> dict[str, float]:
    """{column: value} of one row, from {suite: {name: (value, standard error)}}."""
    cells = {}
    for suite, scores in measured.items():
        for name, (value, stderr) in scores.items():
            cells[column[suite, name]] = value
            cells[f"{column[suite, name]}_stderr"] = stderr
    return cells
