"""A hash of the code that a stage runs, so that changed code reruns it and a changed comment does not."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent
# Modules that change what a person sees or what is refused, never a result; settings come as options.
COSMETIC = {"program", "provenance", "errors", "settings", "limits", "vocabulary"}


def code(script: str) -> str:
    """Hex digest of ``scripts/{script}.py`` and all of our modules that it imports, directly or not.

    Syntax trees are hashed, without comments, docstrings and layout.
    """
    digest = hashlib.sha256(_tree(SCRIPTS / f"{script}.py")[0].encode())
    for module in sorted(_reach(SCRIPTS / f"{script}.py")):
        digest.update(_tree(module)[0].encode())
    return digest.hexdigest()[:12]


def _reach(path: Path) -> set[Path]:
    found, todo = set(), [path]
    while todo:
        for name in _tree(todo.pop())[1]:
            module = SCRIPTS / "deeper_layers" / f"{name}.py"
            if name not in COSMETIC and module.is_file() and module not in found:
                found.add(module)
                todo.append(module)
    return found


@cache
def _tree(path: Path) -> tuple[str, frozenset[str]]:
    """The dump of a file's syntax tree without docstrings, and the names of our modules it imports."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.split(".")[0] == "deeper_layers":
                inner = module.removeprefix("deeper_layers").strip(".").split(".")[0]
                names |= {inner} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("deeper_layers.")}
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, False):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree), frozenset(names)
