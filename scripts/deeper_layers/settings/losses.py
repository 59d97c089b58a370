"""The losses that choose the layers to remove."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting
from .distances import CalibrationText
from .precision import batch, precision


@dataclass(frozen=True, kw_only=True)
class ChoiceLossSettings(Settings):
    """The loss on ``samples`` documents cut to ``length`` tokens, of each cut that may be chosen."""

    WHAT = "losses"

    samples: int = setting(int, 64, "Documents, from the first.", least=2)
    length: int = setting(int, 2048, "Tokens that a document is cut to.", least=2)
    batch: int | None = batch()
    precision: str = precision()


@dataclass(frozen=True, kw_only=True)
class ChoiceLosses(ChoiceLossSettings, CalibrationText):
    """The section ``losses`` of the configuration."""
