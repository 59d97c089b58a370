"""What a healing method is: a recipe's settings, a way to heal a cut, and what it writes. No torch: Snakemake
asks for it while it reads the Snakefile, so a method imports what computes inside of ``heal``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HealingFiles:
    """What a healing reads and writes.

    ``checkpoint`` is the folder of the cut model and ``tokens`` the token file of the text. Results go into
    the folder ``out``; ``state`` is a folder of what a killed run resumes from, removed at the end.
    """

    checkpoint: Path
    tokens: Path
    out: Path
    state: Path
