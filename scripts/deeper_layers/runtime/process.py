"""What of a process must be set before torch is imported: its threads, and packages it does without."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable

# What transformers, peft and accelerate import only because it is installed, which takes longer than most of
# what they import because they need it.
OPTIONAL_IMPORTS = ("datasets", "pandas", "scipy", "sklearn")


def set_threads(threads: int | None) -> None:
    """CPU threads of this process; None: torch decides."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported


def block_imports(packages: Iterable[str]) -> None:
    """Let packages look as if they were not installed, to whatever is imported from here on."""
    for package in packages:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
        if package == "torch":  # else transformers warns that it is missing
            os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def optional_imports(arguments: argparse.Namespace, packages: Iterable[str] = OPTIONAL_IMPORTS) -> list[str]:
    """Packages that a job on a model does without: ``packages``, and bitsandbytes but for 4 bits. None where
    the model brings code of its own, which may import anything."""
    if arguments.trust_remote_code:
        return []
    return [*packages, *(["bitsandbytes"] if arguments.precision != "nf4" else [])]


def torch_unless_verified(arguments: argparse.Namespace) -> list[str]:
    """Reading a config or a tokenizer needs no torch, and without it transformers imports in 0.6 s instead of
    4: blocked unless ``--verify`` loads the result, or the model brings code of its own."""
    needed = arguments.trust_remote_code or getattr(arguments, "verify", False)
    return [] if needed else ["torch"]
