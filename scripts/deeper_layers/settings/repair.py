"""Repairs: which documents they are fitted to and judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from .base import Settings, setting

TOWARD = ("identity", "zero")


@dataclass(frozen=True, kw_only=True)
class RepairSettings(Settings):
    """A repair by the first ``samples`` documents of the recipe's text."""

    WHAT = "repair"

    samples: int = setting(int, 1000, "Documents, from the first.", least=2)
    length: int = setting(int, 1024, "Tokens that a document is cut to.", least=2)
    held_out: float = setting(
        float,
        0.2,
        "Part of the documents, the last ones, that the repair is not fitted to but chosen and judged by.",
        above=0,
        below=1,
    )
    precision: str = setting(str, "bf16", "Of the uncut model: fp32 or bf16.", choices=("fp32", "bf16"))
    batch_tokens: int = setting(
        int,
        4096,
        "Tokens of a batch with padding; halved when memory runs out.",
        determines=False,
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class LinearSettings(RepairSettings):
    """Least squares in the last layer before the cut."""

    ridges: Sequence[float] = setting(
        float,
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        "Ridges to choose from, in units of the mean eigenvalue of M'M.",
        above=0,
    )
    toward: str = setting(
        str,
        "identity",
        "What a large ridge leaves: identity, the cut as it is; or zero, as in ReplaceMe, the cut without "
        "the feed-forward output of that layer.",
        choices=TOWARD,
    )

    def check(self) -> None:
        if not self.ridges:
            raise UserError("repair: ridges is empty; name one at least")
