"""A forward pass over documents, in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.shapes import padded_length, positions
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress


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


def padded(
    documents: Sequence[np.ndarray], pad: int = 0, to: Callable[[int], int] = lambda n: n
) -> tuple[Tensor, Tensor]:
    """Right-padded ids (int64 [B, T], T is ``to(length)`` of the longest) and the position of each last token
    (int64 [B])."""
    ids = torch.full((len(documents), to(max(map(len, documents)))), pad)
    for row, document in zip(ids, documents, strict=True):
        row[: len(document)] = torch.from_numpy(document)
    return ids, torch.tensor([len(d) - 1 for d in documents])


def in_batches(
    model: nn.Module,
    documents: Sequence[np.ndarray],
    batch_tokens: int,
    measure: Callable[[Tensor, Tensor], None],
    what: str,
) -> None:
    """``measure(ids, last)`` of all ``documents`` (int64 [T] each), padded on the right without a mask: under
    causal attention no token sees what follows it. It counts all of a batch, or fails and counts nothing.

    When a batch does not fit in memory, it and all later ones are halved; UserError if not even one document
    fits. ``what`` is measured, in words.
    """
    device = next(model.parameters()).device
    to = partial(padded_length, device=device, longest=positions(model))

    def fits(batch: list[int]) -> bool:
        try:
            measure(*(t.to(device) for t in padded([documents[i] for i in batch], to=to)))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    batches = batches_by_length([len(d) for d in documents], batch_tokens, to)[::-1]
    with Progress(what, len(documents)) as progress:
        while batches:
            if fits(batches[-1]):
                progress.update(len(batches.pop()))
                continue
            longest, rows = len(documents[batches[-1][0]]), len(batches[-1])
            if rows == 1:
                raise UserError(
                    f"one document of {longest} tokens does not fit into memory: measure the {what} with "
                    "precision nf4, with less length, or on a card with more memory"
                )
            free_memory()
            rest = [i for batch in reversed(batches) for i in batch]
            smaller = batches_by_length([len(documents[i]) for i in rest], to(longest) * (rows // 2), to)
            batches = [[rest[i] for i in batch] for batch in reversed(smaller)]
