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


@dataclass(frozen=True)
class Execution:
    """How a healing is computed; the result is the same.

    ``micro_batch`` rows (None: the whole batch) go through the model at once, halved when memory runs out;
    ``checkpointing`` of gradients is ``on``, ``off`` or ``auto``, when not even one row fits without; a state
    to resume from is saved at most every ``save_every`` seconds; ``trust_remote_code`` lets the code that
    comes with the model run.
    """

    micro_batch: int | None = None
    checkpointing: str = "auto"
    save_every: float = 600.0
    trust_remote_code: bool = False
