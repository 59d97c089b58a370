"""How the house is built: rooms on floors, files of a screen or two, and no test that leans on another."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from deeper_layers.study.code_hash import SCRIPTS, _statements, _targets
from helpers.config import ROOT

LIBRARY = SCRIPTS / "deeper_layers"
MODULES = sorted(LIBRARY.rglob("*.py"))
# From the ground up, as CONTRIBUTING.md says; a module imports from its own room and those of lower floors.
FLOORS = [
    {"__init__", "errors", "resources", "layout"},
    {"settings"},
    {"runtime"},
    {"pruning"},
    {"checkpoints"},
    {"data", "models"},
    {"healing", "pretraining", "reporting"},
    {"evaluation", "export"},
    {"importance"},
    {"study", "self_check"},
]
LINES = {"file": 350, "class": 150, "function": 60}


def named(path: Path) -> str:
    """A module as this test names it, ``pruning/strategies``."""
    return str(path.relative_to(LIBRARY).with_suffix(""))


@cache
def imports(path: Path) -> set[Path]:
    """The modules of the library that a file imports, anywhere in it but for type checkers alone."""
    statements = _statements(ast.parse(path.read_text()), path)
    return {module for node in statements for module, _, _ in _targets(node, path)}


def room(path: Path) -> str:
    return named(path).split("/")[0]


def floor(path: Path) -> int:
    """That of a module's room."""
    (number,) = [i for i, rooms in enumerate(FLOORS) if room(path) in rooms]
    return number


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_from_its_room_and_from_lower_floors(path):
    others = [module for module in imports(path) if room(module) != room(path)]
    assert [named(module) for module in others if floor(module) >= floor(path)] == []


def test_no_import_leads_back():
    order = list(TopologicalSorter({path: imports(path) for path in MODULES}).static_order())
    assert set(order) == set(MODULES)


def test_every_room_is_in_contributing():
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    table = [line for line in lines if re.match(r"\| \d+ \|", line)]
    for rooms, line in zip(FLOORS, reversed(table), strict=True):
        assert all(f"`{name}`: " in line for name in rooms - {"__init__"}), rooms
    assert set(map(room, MODULES)) <= set().union(*FLOORS)


PROGRAMS_AND_MODULES = sorted(SCRIPTS.rglob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS_AND_MODULES, ids=lambda path: str(path.relative_to(SCRIPTS)))
def test_nothing_is_longer_than_one_can_read(path):
    lines = {"file": len(path.read_text().splitlines())}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            lines[f"{kind} {node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: n for name, n in lines.items() if n > LINES[name.split()[0]]} == {}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_what_tests_share_is_in_helpers(path):
    """No test imports another test module, nor conftest."""
    others = {other.stem for other in (ROOT / "tests").glob("*.py")}
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert names & others == set()
