"""The angular distances that choose the layers to remove (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from .base import setting
from .precision import Streamed
from .texts import SPLITS, TextUse


@dataclass(frozen=True, kw_only=True)
class DistanceSettings(Streamed):
    """The angular distances: ``samples`` documents cut to ``length`` tokens."""

    WHAT = "distances"

    samples: int = setting(
        int, 10_000, "Documents that are averaged over, from the first. The paper takes 10000.", least=2
    )
    length: int = setting(int, 2048, "Tokens that a document is cut to; the paper does not say.", least=2)
    batch_tokens: int = setting(
        int,
        16_384,
        "Tokens of a batch with padding; a batch that does not fit is halved.",
        determines=False,
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class CalibrationText(TextUse):
    """The text that distances are measured on."""

    split: str = setting(str, "calibration", "Split of the text.", choices=SPLITS)


@dataclass(frozen=True, kw_only=True)
class Distances(DistanceSettings, CalibrationText):
    """The section ``distances`` of the configuration."""
