"""How a batch goes through memory, and what to try when it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..runtime.memory import free_memory, is_out_of_memory

T = TypeVar("T")


@dataclass(frozen=True)
class BatchPlan:
    """How a batch goes through memory; the batch itself stays the same."""

    micro_batch: int
    gradient_checkpointing: bool

    def smaller(self, batch: int, checkpointing: str) -> BatchPlan | None:
        """What to try when this one does not fit: half the rows or fewer, a divisor of ``batch``, then
        gradient checkpointing if ``checkpointing`` is ``auto``. None if nothing is left to try."""
        if self.micro_batch > 1:
            divisors = (m for m in range(self.micro_batch // 2, 0, -1) if batch % m == 0)
            return BatchPlan(next(divisors), self.gradient_checkpointing)
        if checkpointing == "auto" and not self.gradient_checkpointing:
            return BatchPlan(1, True)
        return None


def run_within_memory(
    run: Callable[[BatchPlan], T], plan: BatchPlan, smaller: Callable[[BatchPlan], BatchPlan]
) -> tuple[T, BatchPlan]:
    """``run(plan)`` and the plan that fitted: when memory runs out, ``smaller`` gives the next one to try,
    or raises."""
    while True:
        try:
            return run(plan), plan
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        next_plan = smaller(plan)
        print(f"out of memory with {plan}: trying {next_plan}", flush=True)
        plan = next_plan
        free_memory()
