"""QLoRA, as the paper heals (appendix A.1): an adapter is trained on the frozen cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.artifacts import LoraAdapter
from ..settings.healing import Healing
from .method import Demand, HealingFiles, estimate
from .trained import Trained

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape


class Qlora(Trained):
    TITLE = "QLoRA"
    SETTINGS = Healing
    ARTIFACT = LoraAdapter

    @estimate
    def demand(self, settings: Healing, shape: Shape, document_tokens: float) -> Demand:
        """Forward, backward to the activations, and the teacher's forward."""
        adapter_params = (
            shape.layers
            * shape.experts
            * shape.ffn_matrices
            * settings.rank
            * (shape.width + shape.ffn_width)
        )
        return Demand(
            precision=settings.precision,
            tokens=self.tokens(settings, document_tokens),
            flops_per_param=8 if settings.has_teacher else 6,
            # 2 GB for CUDA, 1 GB for a piece of logits, 16 bytes per parameter of the adapter (itself,
            # gradient, two moments), and a document.
            memory_mb=3000 + (16 * adapter_params + settings.length * shape.training_bytes(True)) / 1e6,
            artifact_bytes=4 * adapter_params,
        )

    def heal(self, files: HealingFiles, settings: Healing, trust_remote_code: bool = False) -> None:
        from .training import heal

        heal(files, settings, trust_remote_code)


METHOD = Qlora()
