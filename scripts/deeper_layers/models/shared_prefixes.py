"""Token sequences that begin alike, in rows in which what they share stands once.

A row holds a tree of tokens. A token sees those on its way from the root and no others, and stands at the
position that it has in its own sequence; so its hidden states are those of a plain pass over that sequence.
What a layer lets a token see of its past, such as a window or a chunk, is a matter of positions, and is taken
from the mask that it gets for a plain pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class SharedPrefixes:
    """``positions`` [R, T]: of each token of R rows in its sequence; ``sees`` [R, T, T]: whether a token, the
    first index, is after another one in a sequence, or is that one. Padding sees itself."""

    positions: Tensor
    sees: Tensor
    masks: dict[int, tuple] = field(default_factory=dict)  # made once of each mask that layers share

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.positions.max()) + 1

    def named(self, layer: nn.Module, here: Sequence, plain: Sequence) -> dict:
        """What ``layer`` is given for these rows beside hidden states, by name: ``here``, its arguments by
        place and by name for these tokens at their positions, with a mask made of that in ``plain``, its
        arguments for one sequence of ``longest`` tokens.

        Raises LookupError for a layer that takes no ``attention_mask``, TypeError for a mask of another kind.
        """
        names = list(inspect.signature(type(layer).forward).parameters)[2:]  # without self, hidden states
        given, expected = (dict(zip(names, others, strict=False)) | named for others, named in (here, plain))
        return given | {"attention_mask": self._mask(expected["attention_mask"])}

    def _mask(self, plain: Tensor | None) -> Tensor:
        """The mask [R, 1, T, T] for these rows, of the one for a sequence, [1, 1, L, L]: bool, or to be added
        to scores. None: a token sees all of its past."""
        if id(plain) not in self.masks:
            # Kept along, so that no other object gets its id.
            self.masks[id(plain)] = plain, self._mask_of(plain)
        return self.masks[id(plain)][1]

    def _mask_of(self, plain: Tensor | None) -> Tensor:
        sees = self.sees[:, None]
        if plain is None:
            return sees
        if not isinstance(plain, Tensor) or plain.shape != (1, 1, self.longest, self.longest):
            raise TypeError(
                f"its masks are not of tokens by tokens but {getattr(plain, 'shape', type(plain))}"
            )
        by_position = plain[0, 0][self.positions[:, :, None], self.positions[:, None, :]][:, None]
        if plain.dtype == torch.bool:
            return sees & by_position
        return by_position.masked_fill(~sees, torch.finfo(plain.dtype).min)
