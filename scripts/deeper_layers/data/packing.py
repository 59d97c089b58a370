"""The documents that healing trains on, of each optimiser step, in order, fixed by the seed.

A step is a batch of rows, and a row is one document (the paper's way), or as many whole documents as fit in
its length, packed. That is what a step learns from; how it is computed is another matter: documents never see
each other (see ``healing.steps``).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from ..errors import UserError
from .tokens import Tokens


class Steps(Dataset):
    """``steps[k]``: the documents of step k, a list of int64 arrays (``Tokens.marked``); those of the
    ``batch`` rows of ``rows`` (lists of document numbers) from k * batch on.

    Documents are cut to ``length`` tokens; those without a second token, and conversations without an answer,
    have nothing to predict and are left out. Each epoch has its own order (and packing), until ``steps``
    batches are full. Raises UserError if no document is left.
    """

    def __init__(
        self,
        tokens: Tokens,
        steps: int,
        batch: int,
        length: int,
        packing: bool,
        seed: int = 0,
    ):
        self.tokens, self.length, self.batch = tokens, length, batch
        lengths = np.minimum(tokens.lengths, length)
        documents = np.flatnonzero(lengths > 1)
        if tokens.learned is not None:
            ends = zip(tokens.offsets[:-1] + 1, tokens.offsets[:-1] + lengths, strict=True)
            has_answer = np.array([tokens.learned[start:end].any() for start, end in ends])
            documents = documents[has_answer[documents]]
        if not len(documents):
            what = "of two tokens or more" if tokens.learned is None else f"with an answer in {length} tokens"
            raise UserError(f"{tokens.path} has no document {what}: nothing to heal on")
        rng = np.random.default_rng(seed)
        rows: list[list[int]] = []
        while len(rows) < steps * batch:
            epoch = rng.permutation(documents)
            if packing:
                packed = pack(epoch, lengths, length)
                rows += [packed[i] for i in rng.permutation(len(packed))]
            else:
                rows += [[d] for d in epoch]
        del rows[steps * batch :]
        self.rows = rows
        per_row = [sum(lengths[d] for d in row) for row in self.rows]
        self.cumulative_tokens = np.cumsum(np.reshape(per_row, (steps, batch)).sum(1))  # real tokens, by step

    def __len__(self) -> int:
        return len(self.rows) // self.batch

    def __getitem__(self, step: int) -> list[np.ndarray]:
        rows = self.rows[step * self.batch : (step + 1) * self.batch]
        return [self.tokens.marked(d, self.length) for row in rows for d in row]


def pack(documents: Sequence[int], lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Rows of whole documents, each document put into the fullest row that still holds it (best fit)."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for d in documents:
        size = int(lengths[d])
        at = bisect_left(room, (size, 0))
        if at < len(room):
            left, row = room.pop(at)
            rows[row].append(int(d))
        else:
            left, row = capacity, len(rows)
            rows.append([int(d)])
        if left - size > 1:  # no document has fewer than two tokens
            insort(room, (left - size, row))
    return rows
