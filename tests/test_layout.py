"""Where the results lie: said once, for the rules and for the programs."""

import ast
import inspect
import re

import pytest

from deeper_layers.checkpoints.folder import MANIFEST
from deeper_layers.layout import Layout
from helpers.config import ROOT

PATHS = Layout("some/results")
METHODS = [name for name, _ in inspect.getmembers(Layout, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_a_path_of_wildcards_is_the_path_of_their_values(name):
    method = getattr(PATHS, name)
    parameters = inspect.signature(method).parameters.values()
    given = {p.name: f"the-{p.name}" for p in parameters if p.default is inspect.Parameter.empty}
    wildcards = {p.name: p.default for p in parameters if str(p.default).startswith("{")}
    if "tasks" in given:
        given["tasks"] = ["one", "two"]
    values = {wildcard.strip("{}"): f"my-{argument}" for argument, wildcard in wildcards.items()}
    filled = method(**given, **{argument: f"my-{argument}" for argument in wildcards})
    patterns = method(**given)
    if isinstance(filled, str):
        filled, patterns = [filled], [patterns]
    for path, pattern in zip(filled, patterns, strict=True):
        assert path == pattern.format(**values) and path.startswith("some/results/")
        assert all(value in path for value in values.values())  # so no two models share a file


def test_no_two_files_are_the_same():
    named = [
        PATHS.table(),
        PATHS.levels(),
        PATHS.study(),
        PATHS.summary(),
        PATHS.plan(),
        PATHS.log("m/adopt"),
    ]
    named += [
        PATHS.study_figure("svg", "x"),
        PATHS.figure("svg", "x", "m"),
        PATHS.export("m", "full", "healed"),
    ]
    named += [PATHS.result(treatment, "full", "loss", "m") for treatment in ("pruned", "healed")]
    named += [PATHS.full("m"), PATHS.blocks("m"), PATHS.distances("m"), PATHS.speed("m")]
    assert len(set(named)) == len(named)


def test_the_rules_write_no_path_of_their_own():
    for path in (ROOT / "rules").glob("*.smk"):
        own = re.findall(r'f?"[^"\n]*\{(?:OUT|paths\.out|study\.out)\}[^"\n]*"', path.read_text())
        assert own == [], path


def test_the_name_of_the_manifest_is_written_once():
    for path in (ROOT / "scripts").rglob("*.py"):
        values = [
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        ]
        if MANIFEST in values:
            assert path.name == "folder.py", path
