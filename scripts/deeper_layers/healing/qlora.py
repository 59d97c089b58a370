"""QLoRA, as the paper heals (appendix A.1): an adapter is trained on the frozen cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.artifacts import LoraAdapter
from ..settings.healing import Healing
from .method import Demand, HealingFiles, Method, estimate

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape


class Qlora(Method):
    TITLE = "QLoRA"
    SETTINGS = Healing
    ARTIFACT = LoraAdapter
    WRITES = ("training.csv",)

    @estimate
    def demand(self, settings: Healing, shape: Shape, document_tokens: float) -> Demand:
        """Forward, backward to the activations, and the forward once more where memory is short. Padded rows
        are counted as twice a document: they are as long as the longest beside them."""
        length = settings.length
        row = length if settings.packing else min(length, 2 * min(length, document_tokens))
        adapter_params = (
            shape.layers
            * shape.experts
            * shape.ffn_matrices
            * settings.rank
            * (shape.width + shape.ffn_width)
        )
        return Demand(
            precision=settings.precision,
            tokens=settings.steps * settings.batch * row,
            flops_per_param=6,
            # 2 GB for CUDA, 16 bytes per parameter of the adapter (itself, gradient, two moments), and a row.
            memory_mb=2000 + (16 * adapter_params + shape.activation_bytes(length)) / 1e6,
            artifact_bytes=4 * adapter_params,
        )

    def heal(self, files: HealingFiles, settings: Healing, trust_remote_code: bool = False) -> None:
        from .lora_training import heal

        heal(files, settings, trust_remote_code)


METHOD = Qlora()
