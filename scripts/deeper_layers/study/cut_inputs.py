"""What the rules of cuts ask: which of them are checked together."""

from __future__ import annotations

from typing import Any

from ..pruning.layer_set import LayerSet
from .inputs import Inputs


class CutInputs:
    """Input functions of the rules of cuts, as in ``Inputs``."""

    def __init__(self, inputs: Inputs):
        self.inputs, self.study = inputs, inputs.study

    def blocks(self, wildcards: Any) -> list[LayerSet]:
        """The cuts of a model that recipes heal, as soon as they are chosen."""
        choices = self.inputs.choices(wildcards.model)
        healed = (self.study.healed(recipe, wildcards.model, choices) for recipe in self.study.recipes)
        blocks = {block for recipe in healed for block in recipe if block.n}
        return sorted(blocks, key=lambda block: (block.n, block.removed))

    def verify_option(self, wildcards: Any, input: Any) -> str:
        """Of a cut that is not among those, as one that is exported: it is checked by itself."""
        is_among_them = wildcards.block in map(str, self.blocks(wildcards))
        return "" if is_among_them else "--verify"
