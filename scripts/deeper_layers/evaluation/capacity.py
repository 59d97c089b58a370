"""How much is computed at once: which inputs make a batch, and less when memory runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError
from .inputs import ROW_TOKENS, Input
from .rows import Row, row_of, rows_of

log = logging.getLogger(__name__)

LEAST = 2  # the shortest row of a batch has at least one in so many of the tokens of the longest


@dataclass
class Capacity:
    """``batch`` sequences at once or, if it is None, as many as make ``tokens``, padding counted, or one row
    of several sequences. ``padded`` says how long a batch is whose longest row has so many tokens, and
    ``most`` is how many tokens memory has room for, as far as is known."""

    batch: int | None
    tokens: int
    padded: Callable[[int], int]
    most: float = math.inf

    def batches(self, inputs: Sequence[Input], share: bool) -> list[list[Row]]:
        """All ``inputs`` in batches of rows, in the order to be scored; rows of several with ``share``."""
        longest = self.padded(max((len(entry.ids) for entry in inputs), default=1))
        tokens = min(self.batch * longest if self.batch else self.tokens, self.most)
        if share:
            # Where inputs are long, room for what a second one adds.
            row_tokens = max(ROW_TOKENS, 2 * longest)
            rows = rows_of(inputs, min(tokens if self.batch else self.most, row_tokens))
        else:
            rows = [row_of(entry) for entry in inputs]
        return batches_of(rows, self.batch, tokens, self.padded)

    def shrink(self, rows: Sequence[Row]) -> None:
        """From now on half of ``rows``, for which memory was small. UserError if they are one sequence."""
        count = sum(len(row.inputs) for row in rows)
        if count == 1:
            raise UserError(
                f"one sequence of {rows[0].tokens} tokens does not fit into memory: "
                "evaluate with precision nf4, or on a card with more memory"
            ) from None
        log.warning("out of memory with %d sequences: half as many from here on", count)
        self.batch = self.batch and max(1, min(self.batch, count) // 2)
        self.most = len(rows) * self.padded(rows[0].tokens) // 2


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of a batch whose size the user leaves open."""
    return 16384 if device.type == "cuda" else 1024


def batches_of(
    rows: Iterable[Row], batch: int | None, batch_tokens: float, padded: Callable[[int], int]
) -> list[list[Row]]:
    """Rows of similar length together, the longest first: those of several inputs, then the others. A batch
    has as many as make ``batch_tokens``, padding counted, those much shorter than its longest one left to the
    next; of rows of one input ``batch``, where it is given.
    """
    batches = []
    ordered = sorted(rows, key=lambda row: (len(row.inputs) == 1, -row.tokens, row.inputs[0].ids))
    while ordered:
        is_single = len(ordered[0].inputs) == 1
        count = max(1, int(batch_tokens // padded(ordered[0].tokens)))
        is_counted = batch and is_single
        first = ordered[: batch if is_counted else count]
        long = 0 if is_counted else ordered[0].tokens / LEAST
        first = [row for row in first if (len(row.inputs) == 1) == is_single and row.tokens >= long]
        batches.append(first)
        ordered = ordered[len(first) :]
    return batches
