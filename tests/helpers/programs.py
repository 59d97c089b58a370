"""The command-line options of the programs in scripts/, without running them."""

from __future__ import annotations

import argparse
import runpy
import sys
from functools import cache

from deeper_layers.runtime import cli
from helpers.config import ROOT


@cache
def parser_of(name: str, *words: str) -> argparse.ArgumentParser:
    """The argument parser of ``scripts/{name}.py``, given such ``words``."""
    found, torch, run = [], sys.modules.get("torch"), cli.run
    cli.run = lambda main, p, *args, **how: found.append(p)
    path, argv = sys.path[:], sys.argv
    try:
        sys.argv = [
            name,
            "--verify",
            "--trust-remote-code",
            *words,
        ]  # some programs do without torch otherwise
        runpy.run_path(str(ROOT / f"scripts/{name}.py"), run_name="__main__")
    finally:
        cli.run, sys.path[:], sys.argv = run, path, argv
        if torch is not None:
            sys.modules["torch"] = torch
    return found[0]
