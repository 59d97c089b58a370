"""Rows of tokens as tensors, and the scores of the tokens in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.shared_prefixes import SharedPrefixes
from .inputs import Score
from .rows import Row

LOGIT_BYTES = 1 << 28  # most memory for float32 logits


def logits_at_once(model) -> int:
    """For how many places logits are computed at a time."""
    return max(1, LOGIT_BYTES // (4 * model.get_input_embeddings().num_embeddings))


@dataclass
class Batch:
    """Padded rows and what is scored in them.

    ``ids`` [B, T], padded on the right; ``rows``, ``columns`` [P]: the places whose logits are needed;
    ``places``, ``targets``, ``owners`` [F]: for each scored token its place in [0, P), ascending, its id,
    and the number of its request. ``shared``: what stands where, if a row is more than one sequence.
    """

    ids: Tensor
    rows: Tensor
    columns: Tensor
    places: Tensor
    targets: Tensor
    owners: Tensor
    shared: SharedPrefixes | None = None

    @classmethod
    def of(
        cls, rows: Sequence[Row], device: torch.device, padded: Callable[[int], int] = lambda n: n
    ) -> Batch:
        """``padded`` says how long a batch is whose longest row has so many tokens."""
        ids = torch.zeros(len(rows), padded(max(row.tokens for row in rows)), dtype=torch.long)
        at, columns, scored = [], [], []
        for number, row in enumerate(rows):
            ids[number, : row.tokens] = torch.tensor(row.ids)
            for entry, path in zip(row.inputs, row.paths, strict=True):
                longest = max(len(continuation) for _, continuation in entry.continuations)
                at += [number] * longest
                columns += path[-longest:]
                for request, continuation in entry.continuations:
                    places = range(len(at) - len(continuation), len(at))
                    scored += zip(places, continuation, [request] * len(continuation), strict=True)
        places, targets, owners = zip(*sorted(scored), strict=True)
        tensors = [torch.as_tensor(x).to(device) for x in (ids, at, columns, places, targets, owners)]
        return cls(*tensors, shared=_shared(rows, ids.shape[1], device))

    def gather_scores(
        self, states: Tensor, head: Callable[[Tensor], Tensor], piece: int
    ) -> tuple[Tensor, Tensor]:
        """The log-probability of each scored token and whether it is the likeliest, [F], given
        ``states`` [B, T, ...] of which ``head`` makes logits, of at most ``piece`` places at a time."""
        states = states[self.rows, self.columns]
        chosen, likeliest = [], []
        for start in range(0, len(states), piece):
            log_p = head(states[start : start + piece]).float().log_softmax(-1)
            here = (self.places >= start) & (self.places < start + piece)
            places, targets = self.places[here] - start, self.targets[here]
            chosen.append(log_p[places, targets])
            likeliest.append(log_p.argmax(-1)[places] == targets)
        return torch.cat(chosen), torch.cat(likeliest)

    def by_request(self, chosen: Tensor, likeliest: Tensor) -> dict[int, Score]:
        """The score of each request of the batch, from the log-probabilities of its tokens and whether they
        are the likeliest, [F]."""
        numbers, owners = self.owners.cpu().unique(return_inverse=True)
        sums = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, owners, chosen.cpu().double())
        misses = torch.zeros(len(numbers)).index_add_(0, owners, (~likeliest).cpu().float())
        return dict(
            zip(numbers.tolist(), zip(sums.tolist(), (misses == 0).tolist(), strict=True), strict=True)
        )


def _shared(rows: Sequence[Row], length: int, device: torch.device) -> SharedPrefixes | None:
    """Where the tokens of ``rows`` padded to ``length`` stand and what they see; None if each row is of one
    sequence, which is what a model expects."""
    if all(len(row.inputs) == 1 for row in rows):
        return None
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    sees = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        positions[number, : row.tokens] = torch.tensor(row.positions)
        row.fill(sees[number])
    return SharedPrefixes(positions.to(device), sees.to(device))
