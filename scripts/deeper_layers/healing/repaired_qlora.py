"""QLoRA on a cut that was repaired first: the adapter is trained on the repaired weights, and the artifact
has both."""

from __future__ import annotations

from ..models.artifacts import RepairedAdapter
from ..settings.healing import HealingAfterRepair
from .qlora import Qlora


class RepairedQlora(Qlora):
    TITLE = "QLoRA on a repaired cut"
    SETTINGS = HealingAfterRepair
    ARTIFACT = RepairedAdapter
    NEEDS = frozenset({"tokens", "repair"})
    HAS_CONTROL = False


METHOD = RepairedQlora()
