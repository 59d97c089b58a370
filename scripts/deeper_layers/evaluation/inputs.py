"""What is scored: continuations after contexts, as token sequences that each run once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import UserError
from ..pruning.layer_set import LayerSet

Request = tuple[Sequence[int], Sequence[int]]  # token ids of a context, never empty, and of its continuation
Score = tuple[float, bool]  # log-likelihood of a continuation in nats; is it what greedy decoding says?
Scores = dict[LayerSet, dict[int, Score]]  # by cut and number of the request

# The study counts by these too, without torch.
SHARE = 3  # an input joins a row where this saves one in so many of its tokens
ROW_TOKENS = 4096  # of several inputs at most, but for two of any length


def add(scores: Scores, more: Scores) -> None:
    """Put ``more`` scores into ``scores``."""
    for block, by_request in more.items():
        scores[block].update(by_request)


def in_order(scores: Scores, count: int) -> dict[LayerSet, list[Score]]:
    """The scores of ``count`` requests by cut, in the order of the requests."""
    return {block: [by_request[i] for i in range(count)] for block, by_request in scores.items()}


@dataclass
class Input:
    """A token sequence that is run once, and the continuations scored at its end, with the numbers of their
    requests."""

    ids: tuple[int, ...]
    continuations: list[tuple[int, Sequence[int]]] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Of its first request."""
        return self.continuations[0][0]


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
