"""What is read by the jobs that evaluate what recipes have healed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..pruning.layer_set import LayerSet
from .chunks import blocks_of
from .inputs import Inputs


class HealedInputs:
    """Input functions of the jobs that evaluate what recipes have healed, as in ``Inputs``."""

    def __init__(self, inputs: Inputs):
        self.inputs, self.study, self.paths = inputs, inputs.study, inputs.paths

    def blocks(self, wildcards: Any) -> list[LayerSet]:
        """The cuts, as soon as they are chosen."""
        recipe, model = wildcards.recipe, wildcards.model
        return blocks_of(wildcards.chunk, self.study, recipe, model, self.inputs.choices(model))

    def summaries(self, wildcards: Any) -> list[str]:
        """What says that they are healed."""
        return self._files(wildcards, ["heal.json"])

    def artifacts(self, wildcards: Any) -> list[str]:
        """What healed them."""
        return self._files(wildcards, self.study.method(wildcards.recipe).artifact_files)

    def cuts(self, wildcards: Any) -> list[str]:
        """Their checkpoints, which are read where the uncut model may not fit into memory."""
        return [self.paths.checkpoint(str(block), wildcards.model) for block in self.blocks(wildcards)]

    def _files(self, wildcards: Any, names: Iterable[str]) -> list[str]:
        recipe, model, blocks = wildcards.recipe, wildcards.model, self.blocks(wildcards)
        return [self.paths.healed(name, recipe, str(block), model) for block in blocks for name in names]
