"""In which numbers a model computes, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .base import Settings, setting

PRECISIONS = ("fp32", "bf16", "nf4")


def precision(default: str = "bf16") -> Any:
    """The precision of a model's weights."""
    return setting(
        str, default, "Of the model: fp32, bf16 or nf4 (4 bits, bitsandbytes).", choices=PRECISIONS
    )


def batch() -> Any:
    """How many sequences are computed at once; only rounding follows from it."""
    meaning = "Sequences at once, or auto, as many as fit."
    return setting(int, None, meaning, determines=False, none="auto", least=1)


@dataclass(frozen=True, kw_only=True)
class Streamed(Settings):
    """A model that may be read one layer at a time; the same layers compute the same, in memory or not."""

    precision: str = precision()
    stream: bool = setting(
        bool,
        False,
        "Read one decoder layer at a time, for models larger than memory; fp32 or bf16. In a suite, of "
        "un-healed cuts.",
        determines=False,
    )
    spill: str | None = setting(
        str,
        None,
        "With stream, a folder for the hidden states of all documents. Default is host memory.",
        determines=False,
    )

    def check(self) -> None:
        if self.stream and self.precision == "nf4":
            raise UserError(
                f"{self.WHAT}: stream reads weights as they are, so precision cannot be nf4; write bf16 or "
                "fp32"
            )
