"""Training of the last layers, the norm and the head in full, the baseline of arXiv 2411.15558."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.artifacts import ReplacedTensors
from ..settings.healing import PartialHealing
from .method import Demand, HealingFiles, Method, estimate

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape


class Partial(Method):
    TITLE = "Partial training"
    SETTINGS = PartialHealing
    ARTIFACT = ReplacedTensors
    WRITES = ("training.csv",)

    def needs(self, settings: PartialHealing) -> frozenset[str]:
        """Where the uncut model teaches, that is read too."""
        return self.NEEDS | ({"full"} if settings.has_teacher else frozenset())

    def has_control(self, settings: PartialHealing) -> bool:
        """Of itself the uncut model has nothing to learn."""
        return settings.cross_entropy > 0

    @estimate
    def demand(self, settings: PartialHealing, shape: Shape, document_tokens: float) -> Demand:
        """As that of an adapter, whose backward pass ends at the first layer that trains."""
        row = settings.length if settings.packing else min(settings.length, document_tokens)
        part = min(settings.layers, shape.layers) / shape.layers
        params = part * shape.layer_params + shape.width * shape.vocabulary
        return Demand(
            precision=settings.precision,
            tokens=settings.steps * settings.batch * row,
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
