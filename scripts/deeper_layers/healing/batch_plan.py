"""How an optimiser step goes through memory, and what to try when it does not fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..checkpoints.shape import Shape


@dataclass(frozen=True)
class BatchPlan:
    """How a step goes through memory; the step itself stays the same. ``batch_tokens`` is how many tokens go
    through the model at once, padding counted; a longer document goes alone."""

    batch_tokens: int
    gradient_checkpointing: bool

    def smaller(self, tokens: int, longest: int, checkpointing: str) -> BatchPlan | None:
        """What to try when this one did not fit with ``tokens`` at once: half of them, but room for the
        ``longest`` document, then gradient checkpointing if ``checkpointing`` is ``auto``. None if nothing is
        left to try."""
        if tokens > longest:
            return BatchPlan(max(longest, min(tokens, self.batch_tokens) // 2), self.gradient_checkpointing)
        if checkpointing == "auto" and not self.gradient_checkpointing:
            return BatchPlan(self.batch_tokens, True)
        return None


def first_plan(shape: Shape, checkpointing: str, longest: int, device: torch.device) -> BatchPlan:
    """What to begin with where the user leaves it open: on a GPU as many tokens as the free memory seems to
    have room for, with gradient checkpointing (``auto``) once that is not even the ``longest`` document."""
    if device.type != "cuda":
        return BatchPlan(CPU_TOKENS, checkpointing == "on")
    room = 0.8 * torch.cuda.mem_get_info(device)[0]
    without, with_ = (int(room / shape.training_bytes(is_on)) for is_on in (False, True))
    if checkpointing == "on" or checkpointing == "auto" and without < longest:
        return BatchPlan(max(with_, longest), True)
    return BatchPlan(max(without, longest), False)


CPU_TOKENS = 2048
