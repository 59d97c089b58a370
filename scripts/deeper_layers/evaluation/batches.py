"""What is scored: continuations after contexts, as batches of token sequences that each run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UserError
from ..pruning.layer_set import LayerSet

Request = tuple[Sequence[int], Sequence[int]]  # token ids of a context, never empty, and of its continuation
Score = tuple[float, bool]  # log-likelihood of a continuation in nats; is it what greedy decoding says?
Scores = dict[LayerSet, dict[int, Score]]  # by cut and number of the request

LOGIT_BYTES = 1 << 28  # most memory for float32 logits


def add(scores: Scores, more: Scores) -> None:
    """Put ``more`` scores into ``scores``."""
    for block, by_request in more.items():
        scores[block].update(by_request)


def in_order(scores: Scores, count: int) -> dict[LayerSet, list[Score]]:
    """The scores of ``count`` requests by cut, in the order of the requests."""
    return {block: [by_request[i] for i in range(count)] for block, by_request in scores.items()}


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of a batch whose size the user leaves open."""
    return 16384 if device.type == "cuda" else 1024


def logits_at_once(model) -> int:
    """For how many places logits are computed at a time."""
    return max(1, LOGIT_BYTES // (4 * model.get_input_embeddings().num_embeddings))


@dataclass
class Input:
    """A token sequence that is run once, and the continuations scored at its end, with the numbers of their
    requests."""

    ids: tuple[int, ...]
    continuations: list[tuple[int, Sequence[int]]] = field(default_factory=list)


def inputs_of(requests: Sequence[Request], max_length: int) -> list[Input]:
    """The distinct inputs of ``requests``, longest first. Choices of one token share one, as in lm-eval.

    Raises UserError for a continuation of more than ``max_length`` tokens.
    """
    inputs: dict[tuple[int, ...], Input] = {}
    for number, (context, continuation) in enumerate(requests):
        if len(continuation) > max_length:
            raise UserError(
                f"a continuation of {len(continuation)} tokens is longer than the model's {max_length}"
            )
        ids = (*context, *continuation)[-(max_length + 1) : -1]
        inputs.setdefault(ids, Input(ids)).continuations.append((number, continuation))
    return sorted(inputs.values(), key=lambda i: (-len(i.ids), i.ids))


def first_batch(
    inputs: list[Input], batch: int | None, batch_tokens: int, padded: Callable[[int], int]
) -> list[Input]:
    """The first of ``inputs``, which are longest first: ``batch``, or as many as make ``batch_tokens``."""
    return inputs[: batch or max(1, batch_tokens // padded(len(inputs[0].ids)))]


@dataclass
class Batch:
    """Padded inputs and what is scored in them.

    ``ids`` [B, T], padded on the right; ``rows``, ``columns`` [P]: the places whose logits are needed;
    ``places``, ``targets``, ``owners`` [F]: for each scored token its place in [0, P), ascending, its id,
    and the number of its request.
    """

    ids: Tensor
    rows: Tensor
    columns: Tensor
    places: Tensor
    targets: Tensor
    owners: Tensor

    @classmethod
    def of(
        cls, inputs: Sequence[Input], device: torch.device, padded: Callable[[int], int] = lambda n: n
    ) -> Batch:
        """``padded`` says how long a batch is whose longest sequence has so many tokens."""
        ids = torch.zeros(len(inputs), padded(max(len(i.ids) for i in inputs)), dtype=torch.long)
        rows, columns, scored = [], [], []
        for row, entry in enumerate(inputs):
            ids[row, : len(entry.ids)] = torch.tensor(entry.ids)
            longest = max(len(continuation) for _, continuation in entry.continuations)
            rows += [row] * longest
            columns += range(len(entry.ids) - longest, len(entry.ids))
            for number, continuation in entry.continuations:
                places = range(len(rows) - len(continuation), len(rows))
                scored += zip(places, continuation, [number] * len(continuation), strict=True)
        places, targets, owners = zip(*sorted(scored), strict=True)
        return cls(*(torch.as_tensor(x).to(device) for x in (ids, rows, columns, places, targets, owners)))

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
