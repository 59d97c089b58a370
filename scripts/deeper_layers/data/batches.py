"""Documents in batches of similar length, padded on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def batches_by_length(
    lengths: Sequence[int], batch_tokens: int, padded: Callable[[int], int] = lambda n: n
) -> list[list[int]]:
    """Indices of documents in batches of similar length: at most ``batch_tokens`` tokens, padding (to
    ``padded(length)``) counted."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):  # the longest first: fail early
        if batches and padded(lengths[batches[-1][0]]) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def batches_of_least_cost(
    lengths: Sequence[int],
    batch_tokens: int,
    overhead: int,
    padded: Callable[[int], int] = lambda n: n,
) -> list[list[int]]:
    """The same, in the batches whose tokens, with padding, are the fewest when each batch costs as much as
    ``overhead`` tokens besides. A document beyond ``batch_tokens`` has a batch to itself."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    cost = np.full(len(order) + 1, np.inf)  # of the first so many documents
    begins = np.zeros(len(order) + 1, dtype=int)  # of the last batch of those
    cost[0] = 0
    for first, i in enumerate(order):
        width = padded(lengths[i])
        counts = np.arange(1, min(max(1, batch_tokens // width), len(order) - first) + 1)
        found, known = cost[first] + width * counts + overhead, cost[first + 1 : first + 1 + len(counts)]
        begins[first + 1 : first + 1 + len(counts)][found < known] = first
        np.minimum(known, found, out=known)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]


def padded(
    documents: Sequence[np.ndarray], pad: int = 0, to: Callable[[int], int] = lambda n: n
) -> tuple[Tensor, Tensor]:
    """Right-padded ids (int64 [B, T], T is ``to(length)`` of the longest) and the position of each last token
    (int64 [B])."""
    ids = torch.full((len(documents), to(max(map(len, documents)))), pad)
    for row, document in zip(ids, documents, strict=True):
        row[: len(document)] = torch.from_numpy(document)
    return ids, torch.tensor([len(d) - 1 for d in documents])
