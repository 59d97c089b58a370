"""Writes the files that are made from the code: ``make docs``. With --check it only says which differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from generators import architectures, configuration  # noqa: E402

# File, from the root of the repository -> what returns its text. Tests compare them.
FILES: dict[str, Callable[[], str]] = {
    "resources/config.schema.yaml": configuration.schema_file,
    "docs/config.md": configuration.page,
    "docs/architectures.md": architectures.page,
}


def differing(names: list[str]) -> dict[str, str]:
    """Of the files of these names, those that are not what the code makes of them: name -> right text."""
    texts = {name: FILES[name]() for name in names}
    return {n: text for n, text in texts.items() if not (ROOT / n).exists() or (ROOT / n).read_text() != text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"{', '.join(FILES)}; default: all")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    arguments = parser.parse_args()
    if unknown := set(arguments.files) - set(FILES):
        parser.error(f"{', '.join(sorted(unknown))}: not made here; known: {', '.join(FILES)}")
    texts = differing(arguments.files or list(FILES))
    for name, text in texts.items():
        print(f"{name} {'differs: run make docs' if arguments.check else 'written'}")
        if not arguments.check:
            (ROOT / name).write_text(text)
    sys.exit(arguments.check and bool(texts))


if __name__ == "__main__":
    main()
