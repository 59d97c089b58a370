"""Repair by one number for each run of removed layers, after Prune&Comp (AAAI 2026): the residual stream is
as large behind the cut as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.artifacts import ReplacedTensors
from ..settings.repair import RepairSettings
from .method import Demand, HealingFiles, Method, estimate

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape


class Scale(Method):
    TITLE = "Scale repair"
    SETTINGS = RepairSettings
    ARTIFACT = ReplacedTensors
    NEEDS = frozenset({"tokens", "full"})
    HAS_CONTROL = False

    @estimate
    def demand(self, settings: RepairSettings, shape: Shape, document_tokens: float) -> Demand:
        """A pass of what is fitted to, two of what is kept aside; the changed weights, and the logits of a
        batch."""
        tokens = settings.samples * min(settings.length, document_tokens)
        logits = 8 * settings.batch_tokens * shape.embedding_params / shape.width
        weights = 4 * shape.layers * shape.width * (shape.width + shape.ffn_width)
        return Demand(
            precision=settings.precision,
            tokens=(1 + 2 * settings.held_out) * tokens,
            flops_per_param=2,
            memory_mb=2000 + (weights + logits) / 1e6,
            artifact_bytes=weights,
        )

    def heal(self, files: HealingFiles, settings: RepairSettings, trust_remote_code: bool = False) -> None:
        from .repair import repair
        from .stream_scale import fit

        repair(files, settings, self.TITLE, fit, trust_remote_code)


METHOD = Scale()
