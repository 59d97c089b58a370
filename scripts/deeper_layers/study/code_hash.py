"""A hash of the code that a stage runs, so that changed code reruns it and a changed comment does not.

A module is hashed by its syntax tree, without comments, docstrings and layout, and with each import of ours
replaced by the hash of what it leads to: a changed module changes all that import it, and one that only moves
changes none. Files of ``resources/`` count in the modules that ask for them (``resources.resource``); what is
marked as an ``estimate`` (``healing.method``) does not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parents[2]
PACKAGE = "deeper_layers"
# Modules, and folders of them, that change what a person sees or what is refused, never a result (settings
# come as options): what they import counts, they themselves do not.
COSMETIC = {
    *("errors", "layout", "resources", "settings"),
    *("checkpoints/config_keys", "checkpoints/limits", "checkpoints/model_types", "checkpoints/vocabulary"),
    *("runtime/cli", "runtime/gpus", "runtime/imports", "runtime/nvidia"),
    *("runtime/progress", "runtime/provenance"),
    "healing/methods",  # the modules that it names count by ``code``
    "reporting/figures/registry",  # captions; the modules that it names count by ``code``
}


def code(script: str, module: str = "") -> str:
    """Hex digest of ``scripts/{script}.py`` with all of our modules that it imports, directly or not, and
    all resources that these read; and of a ``module`` that it loads by name, as ``reporting/figures/cost``.
    Raises ValueError for a resource that is not named by a plain text."""
    paths = [SCRIPTS / f"{script}.py", *([SCRIPTS / PACKAGE / f"{module}.py"] if module else [])]
    return " ".join(digest(path)[:12] for path in paths)


@cache
def digest(path: Path) -> str:
    """Hex digest of a module with all that it imports of ours."""
    tree = ast.parse(path.read_text())
    targets = [target for node in _statements(tree, path) for target in _targets(node, path)]
    if {path.with_suffix(""), path.parent} & {SCRIPTS / PACKAGE / name for name in COSMETIC}:
        return _sha256("\n".join(sorted({digest(module) for module, _, _ in targets})))
    imported = sorted(f"{digest(module)} {name} {bound}" for module, name, bound in targets)
    resources = sorted(_content(_resource(name)) for name in _resource_names(tree, path))
    _strip(tree, path)
    return _sha256("\n".join([ast.dump(tree), *imported, *resources]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _statements(tree: ast.AST, path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of modules of ours, but for those that only type checkers read."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if _is_for_type_checkers(node):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            if next(_targets(node, path), None):
                yield node
        else:
            todo += ast.iter_child_nodes(node)


def _counts(node: ast.AST) -> bool:
    """Whether a statement can change a result."""
    marks = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    is_estimate = any(isinstance(mark, ast.Name) and mark.id == "estimate" for mark in marks)
    return not is_estimate and not _is_for_type_checkers(node)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _targets(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[tuple[Path, str, str]]:
    """(module of ours, name in it or nothing, name that it gets) of everything that a statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if module := _module(SCRIPTS.joinpath(*alias.name.split("."))):
                yield module, "", alias.asname or alias.name
        return
    names = (node.module or "").split(".") if node.module else []
    if node.level:
        folder = path.parents[node.level - 1]
    elif names and names[0] == PACKAGE:
        folder = SCRIPTS
    else:
        return
    folder = folder.joinpath(*names)
    for alias in node.names:
        bound = alias.asname or alias.name
        if module := _module(folder / alias.name):
            yield module, "", bound
        elif module := _module(folder):
            yield module, alias.name, bound


def _module(path: Path) -> Path | None:
    """The file of a module or package of ours that is imported as ``path``."""
    files = [path.with_suffix(".py"), path / "__init__.py"] if PACKAGE in path.parts else []
    return next((file for file in files if file.is_file()), None)


def _resource_names(tree: ast.AST, path: Path) -> Iterator[str]:
    """Those that a module calls ``resource`` with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "resource":
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if not isinstance(name, str):
                raise ValueError(f"{path}:{node.lineno}: name the resource by a plain text")
            yield name


def _resource(name: str) -> Path:
    return SCRIPTS.parent / "resources" / name


def _content(path: Path) -> str:
    """A hash of a file, or of all files of a folder with their names."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    found = [f"{p.relative_to(path)} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files]
    return _sha256("\n".join(found))


def _strip(tree: ast.AST, path: Path) -> None:
    """Take out what is hashed otherwise or not at all: our imports, docstrings."""
    ours = set(_statements(tree, path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, False):
            node.body = node.body[1:] or [ast.Pass()]
        for field in ("body", "orelse", "finalbody"):
            if isinstance(lines := getattr(node, field, None), list):
                setattr(node, field, [line for line in lines if line not in ours and _counts(line)])
