"""How memory and speed are measured."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting
from .precision import precision


@dataclass(frozen=True, kw_only=True)
class SpeedSettings(Settings):
    """How memory and speed are measured. All of it determines what is found."""

    WHAT = "speed"

    batch: int = setting(int, 1, "Sequences generated at once.", least=1)
    prompt: int = setting(int, 512, "Tokens of a prompt.", least=1)
    new: int = setting(int, 64, "Tokens generated after it.", least=2)
    repeats: int = setting(int, 5, "Timed runs of each cut; what is reported is their median.", least=1)
    precision: str = precision()
