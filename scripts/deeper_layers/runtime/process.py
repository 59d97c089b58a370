"""What of a process must be set before torch is imported: its threads, and packages it does without."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from types import ModuleType

from .imports import after_import

# What transformers, peft and accelerate import only because it is installed, which takes longer than most of
# what they import because they need it.
OPTIONAL_IMPORTS = ("datasets", "pandas", "scipy", "sklearn")
# A job is one process, with one card at most. What transformers imports for several takes a quarter of its
# time; torch can be built without, so it asks whether that is there.
DISTRIBUTED = "torch.distributed"


def set_threads(threads: int | None) -> None:
    """CPU threads of this process; None: torch decides."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported


def block_imports(packages: Iterable[str]) -> None:
    """Let packages look as if they were not installed, to whatever is imported from here on; ``DISTRIBUTED``,
    as if torch was built without it."""
    for package in packages:
        if package == DISTRIBUTED:
            after_import(DISTRIBUTED, _be_unavailable)
            continue
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
        if package == "torch":  # else transformers warns that it is missing
            os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def _be_unavailable(distributed: ModuleType) -> None:
    distributed.is_available = lambda: False  # type: ignore[attr-defined]


def optional_imports(arguments: argparse.Namespace, packages: Iterable[str] = OPTIONAL_IMPORTS) -> list[str]:
    """Packages that a job on a model does without: ``packages``, ``DISTRIBUTED``, and bitsandbytes but for 4
    bits. None where the model brings code of its own, which may import anything."""
    if getattr(arguments, "trust_remote_code", False):
        return []
    in_4_bits = getattr(arguments, "precision", None) == "nf4"
    return [*packages, DISTRIBUTED, *([] if in_4_bits else ["bitsandbytes"])]


def torch_unless_verified(arguments: argparse.Namespace) -> list[str]:
    """Reading a config or a tokenizer needs no torch, and without it transformers imports in 0.3 s instead of
    2: blocked unless ``--verify`` loads the result, or the model brings code of its own."""
    if arguments.trust_remote_code or getattr(arguments, "verify", False):
        return optional_imports(arguments)
    return ["torch"]
