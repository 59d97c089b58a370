"""The results table, gathered from the study's own files: one row per (model, strategy, n, treatment).

The levels (chance, majority class), which figures draw as lines, are a table of their own. ``metrics`` reads
both tables, ``formats`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from ..checkpoints.cut_size import cut_size
from ..errors import UserError
from ..pruning.choices import Choice, read_choices
from ..pruning.layer_set import FULL, LayerSet
from ..runtime.files import read_json
from .columns import LEVELS, MEASURED, SIZE, VARIANT
from .published import Published, published_names
from .scores import PRUNED, existing, read_result, result_path, suite_levels, suite_scores


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
        manifest = read_json(existing(folder / "checkpoints" / str(FULL) / "manifest.json", "adopt.py"))
        choices = read_choices(existing(folder / "blocks.csv", "blocks.py"))
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

    def healed(self, model: str, choices: Iterable[Choice]) -> set[LayerSet]:
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
    healed: dict[str, set[LayerSet]] = {}
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
        **cut_size(manifest, choice.block),
        "distance": choice.distance,
    }


def read_speed(path: Path) -> dict[str, dict[str, float]]:
    """{block: what was measured} of a speed.csv."""
    return pd.read_csv(existing(path, "speed.py"), index_col="block")[MEASURED].to_dict("index")


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
