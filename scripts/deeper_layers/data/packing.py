"""The rows that healing trains on: every row of the whole run, in order, fixed by the seed.

A row holds one document, padded (the paper's way), or as many whole documents as fit, packed. Packed
documents do not see each other: their position ids restart, from which transformers builds the mask.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import UserError
from .tokens import Tokens

IGNORE_INDEX = -100  # label that the loss leaves out
PAD_ID = 0  # token id of padding: never a label, and causal attention hides it from the tokens before it


class Rows(Dataset):
    """``rows[k]``: the documents of row k of the run, as a list of int64 arrays; rows k * batch to
    (k + 1) * batch make step k, whatever the micro-batch, so a resumed run meets the same rows.

    Documents are cut to ``length`` tokens; those without a second token have nothing to predict and
    are left out. Each epoch has its own order (and packing), until ``steps`` batches are full. Raises
    UserError if no document is left.
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
        self.tokens, self.length = tokens, length
        lengths = np.minimum(tokens.lengths, length)
        documents = np.flatnonzero(lengths > 1)
        if not len(documents):
            raise UserError(f"{tokens.path} has no document of two tokens or more: nothing to heal on")
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
        self.rows = rows if packing else longest_first(rows, lengths, batch)
        per_row = [sum(lengths[d] for d in row) for row in self.rows]
        self.cumulative_tokens = np.cumsum(np.reshape(per_row, (steps, batch)).sum(1))  # real tokens, by step

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> list[np.ndarray]:
        return [self.tokens[d][: self.length] for d in self.rows[row]]


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


def longest_first(rows: list[list[int]], lengths: np.ndarray, batch: int) -> list[list[int]]:
    """One-document rows sorted by length within each batch: every step trains on the same documents, but
    micro-batches need little padding."""
    batches = (rows[i : i + batch] for i in range(0, len(rows), batch))
    return [row for rows in batches for row in sorted(rows, key=lambda row: -lengths[row[0]])]


def collate(
    rows: list[list[np.ndarray]], packing: bool, padded: Callable[[int], int] = lambda n: n
) -> dict[str, torch.Tensor]:
    """A batch of ``input_ids``, ``labels`` and, if packed, ``position_ids``: int64 [rows, T], with T
    ``padded(length)`` of the longest row.

    Labels are the tokens themselves (models shift them); padding and the first token of each document
    are ignored. There is no attention mask: padding is on the right, where causal attention never looks,
    and transformers keeps packed documents apart only without one.
    """
    width = padded(max(sum(map(len, row)) for row in rows))
    ids = np.full((len(rows), width), PAD_ID, dtype=np.int64)
    labels = np.full_like(ids, IGNORE_INDEX)
    positions = np.zeros_like(ids)
    for r, row in enumerate(rows):
        at = 0
        for document in row:
            end = at + len(document)
            ids[r, at:end] = document
            labels[r, at + 1 : end] = document[1:]
            positions[r, at:end] = np.arange(len(document))
            at = end
        positions[r, at:] = np.arange(width - at)
    batch = {"input_ids": ids, "labels": labels}
    if packing:
        batch["position_ids"] = positions
    return {name: torch.from_numpy(array) for name, array in batch.items()}
