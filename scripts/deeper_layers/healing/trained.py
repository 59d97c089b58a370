"""What healing methods that train have in common."""

from __future__ import annotations

from ..settings.healing import TrainingSettings
from .method import Method, estimate


class Trained(Method):
    """A method whose settings are those of a training and of what trains."""

    WRITES = ("training.csv",)

    def needs(self, settings: TrainingSettings) -> frozenset[str]:
        """Where the uncut model teaches, that is read too."""
        return self.NEEDS | ({"full"} if settings.has_teacher else frozenset())

    def has_control(self, settings: TrainingSettings) -> bool:
        """Of itself the uncut model has nothing to learn."""
        return self.HAS_CONTROL and settings.cross_entropy > 0

    @estimate
    def tokens(self, settings: TrainingSettings, document_tokens: float) -> float:
        """All that are trained on, given those of a document."""
        row = settings.length if settings.packing else min(settings.length, document_tokens)
        return settings.steps * settings.batch * row
