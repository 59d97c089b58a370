"""The English that every Python installation carries: its help topics and the docstrings of its library.

The documents are those of the Python that runs, always the same for one installation, and read as syntax
trees: nothing of it is imported or run.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..errors import UserError

SHORTEST, LONGEST = 100, 4000  # characters of a document; longer help topics are taken apart
# Not English of the library itself: packages installed beside it, tests, wheels for pip.
OUTSIDE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "_bundled", "__pycache__"}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
TOPICS = "pydoc_data/topics.py"


@cache
def english() -> tuple[str, ...]:
    """All documents of this Python, which take a few seconds to find."""
    return tuple(documents(library()))


def library() -> Path:
    """The folder of this Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def documents(root: Path) -> Iterator[str]:
    """Pieces of help topics, then docstrings of at least ``SHORTEST`` characters, in the order of the files.

    Raises UserError for a Python without the sources of its library.
    """
    paths = sorted(path for path in root.rglob("*.py") if not OUTSIDE & set(path.relative_to(root).parts))
    if not paths:
        raise UserError(f"this Python has no sources of its library in {root}: take another text")
    if (root / TOPICS).is_file():
        for topic in _topics(root / TOPICS):
            yield from pieces(topic)
    for path in paths:
        for node in _statements(_tree(path)):
            text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            if text and len(text.strip()) >= SHORTEST:
                yield text.strip()


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all statements inside it, in order."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler):
            yield from _statements(child)


def _tree(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one for code of other Pythons, which some templates are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in other people's code
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return ast.Module([], [])


def _topics(path: Path) -> Iterator[str]:
    """The texts of the dictionary ``topics`` in a file, by their names."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            yield from (topics[name] for name in sorted(topics))


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of whole paragraphs, up to ``LONGEST`` characters unless one paragraph is longer;
    those shorter than ``SHORTEST`` are left out."""
    piece = ""
    for paragraph in text.strip().split("\n\n"):
        if piece and len(piece) + len(paragraph) > LONGEST:
            yield from [piece] if len(piece) >= SHORTEST else []
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
    yield from [piece] if len(piece) >= SHORTEST else []
