"""Repair by least squares, after ReplaceMe (arXiv 2505.02819): the feed-forward output of the last layer
before the cut is mapped so that the residual stream comes close to what it was behind the cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.artifacts import ReplacedTensors
from ..settings.repair import LinearSettings
from .method import Demand, HealingFiles, Method, estimate

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape


class Linear(Method):
    TITLE = "Linear repair"
    SETTINGS = LinearSettings
    ARTIFACT = ReplacedTensors
    NEEDS = frozenset({"tokens", "full"})
    HAS_CONTROL = False

    @estimate
    def demand(self, settings: LinearSettings, shape: Shape, document_tokens: float) -> Demand:
        """A pass of what is fitted to, one of what is kept aside for each ridge and for none; six matrices of
        the width in float64, and the logits of a batch."""
        tokens = settings.samples * min(settings.length, document_tokens)
        passes = 1 + settings.held_out * (1 + len(settings.ridges))
        logits = 8 * settings.batch_tokens * shape.embedding_params / shape.width
        return Demand(
            precision=settings.precision,
            tokens=passes * tokens,
            flops_per_param=2,
            memory_mb=2000 + (6 * 8 * shape.width**2 + logits) / 1e6,
            artifact_bytes=4 * shape.width * shape.ffn_width,
        )

    def heal(self, files: HealingFiles, settings: LinearSettings, trust_remote_code: bool = False) -> None:
        from .least_squares import fit
        from .repair import repair

        repair(files, settings, self.TITLE, fit, trust_remote_code)


METHOD = Linear()
