"""Strategies: the settings of a rule that chooses which layers go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from .base import REQUIRED, Settings, setting

# Kinds of evidence that are found step by step, among the layers that are not protected.
SEARCHED = {"greedy_losses", "iterative_influence"}


@dataclass(frozen=True, kw_only=True)
class StrategySettings(Settings):
    """An entry of ``strategies``: a rule and its settings. Which rule reads which is in its module."""

    WHAT = "strategies"

    rule: str = setting(str, REQUIRED, "How the layers are chosen: a rule of pruning/strategies.py.")
    protect: Sequence[int] = setting(
        int,
        (),
        "Layers that stay, by their numbers; negative ones count from the end, -1 is the last. Of every rule "
        "but published.",
        unique=True,
    )
    text: str | None = setting(
        str,
        None,
        "Of a rule that chooses by something measured: the text to measure it on. Default is that of the "
        "section that says how it is measured.",
    )
    seed: int = setting(int, 0, "Of random.", least=0)
    contiguous: bool = setting(bool, False, "Of random: one block instead of single layers.")
    layers: Sequence[int] = setting(
        int, (), "Of given: layers in the order in which they go; n takes the first n.", unique=True, least=0
    )
    order: str | None = setting(
        str,
        None,
        "Of given, instead of layers: the name of a published order (resources/published/orders.csv).",
    )

    step: int = setting(int, 1, "Of iterative: layers that go before it is measured again.", least=1)

    def check(self) -> None:
        if self.rule == "given" and bool(self.layers) == bool(self.order):
            raise UserError("strategies: given takes either layers or order")

    def evidence(self, kind: str) -> str:
        """What evidence of a ``kind`` is called in paths: the text is named where the entry names it, and
        protected layers and steps where they change what is measured, as in iterative_influence+by2+0+m1-c4.
        """
        parts = [f"by{self.step}"] if self.step > 1 else []
        if kind in SEARCHED:
            parts += [str(layer).replace("-", "m") for layer in sorted(set(self.protect))]
        kind = "+".join([kind, *parts])
        return f"{kind}-{self.text}" if self.text else kind
