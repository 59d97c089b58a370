"""How the house is built: who imports whom."""

import ast

import pytest

from helpers.config import ROOT


def imported(tree: ast.AST) -> set[str]:
    """Names of the modules that a file imports, anywhere in it; of ``from a import b`` a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_what_tests_share_is_in_helpers(path):
    """No test imports another test module, nor conftest."""
    others = {other.stem for other in (ROOT / "tests").glob("*.py")}
    assert imported(ast.parse(path.read_text())) & others == set()
