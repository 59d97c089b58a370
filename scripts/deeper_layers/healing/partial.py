"""Training of the last layers, the norm and the head in full, the baseline of arXiv 2411.15558."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.artifacts import ReplacedTensors
from ..settings.healing import PartialHealing
from .method import Demand, HealingFiles, estimate
from .trained import Trained

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape


class Partial(Trained):
    TITLE = "Partial training"
    SETTINGS = PartialHealing
    ARTIFACT = ReplacedTensors

    @estimate
    def demand(self, settings: PartialHealing, shape: Shape, document_tokens: float) -> Demand:
        """As that of an adapter, whose backward pass ends at the first layer that trains."""
        part = min(settings.layers, shape.layers) / shape.layers
        params = part * shape.layer_params + shape.width * shape.vocabulary
        return Demand(
            precision=settings.precision,
            tokens=self.tokens(settings, document_tokens),
            flops_per_param=2 + 4 * part + (2 if settings.has_teacher else 0),
            # 2 GB for CUDA, 1 GB for logits; what trains, its gradient and two moments; and a document.
            memory_mb=3000 + (16 * params + settings.length * shape.training_bytes(True)) / 1e6,
            artifact_bytes=4 * params,
        )

    def heal(self, files: HealingFiles, settings: PartialHealing, trust_remote_code: bool = False) -> None:
        from .parts import LastLayers
        from .training import heal

        heal(files, settings, trust_remote_code, LastLayers)


METHOD = Partial()
