"""Token sequences that begin alike, in rows in which what they share stands once.

A row holds a tree of tokens. A token sees those on its way from the root and no others, and stands at the
position that it has in its own sequence; so its hidden states are those of a plain pass over that sequence.
What a layer lets a token see of its past, such as a window or a chunk, is a matter of positions, and is taken
from the mask that it gets for a plain pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

PIECE = 128  # tokens that attend at a time on a CPU: as fast as it gets at the width of SmolLM2-135M


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

    def attention(self) -> AbstractContextManager:
        """Within it torch's attention of a layer leaves out what no token of a piece of a row sees, which in
        a long row is most. On a CPU; a GPU is as fast with a single kernel for all of it."""
        if self.sees.device.type != "cpu" or self.sees.shape[-1] <= PIECE:
            return nullcontext()
        return _InPieces(self._pieces, self.sees.shape[-1])

    @cached_property
    def _pieces(self) -> list[list[tuple[slice, Tensor]]]:
        """For each row its pieces, and the places [K] that any token of the piece sees."""
        starts = range(0, self.sees.shape[-1], PIECE)
        pieces = [slice(start, start + PIECE) for start in starts]
        return [[(piece, row[piece].any(0).nonzero()[:, 0]) for piece in pieces] for row in self.sees]

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


class _InPieces(TorchFunctionMode):
    """Attention over rows of ``tokens`` tokens, of each of which ``pieces`` says what its tokens see. A call
    of other shapes is left as it is."""

    def __init__(self, pieces: list[list[tuple[slice, Tensor]]], tokens: int):
        super().__init__()
        self.pieces, self.tokens = pieces, tokens

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is functional.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask=None, *more, **named) -> Tensor:
        attend = functional.scaled_dot_product_attention
        if not self._is_of_the_rows(query, key, attn_mask):
            return attend(query, key, value, attn_mask, *more, **named)
        mask = attn_mask.expand(len(query), *attn_mask.shape[1:])

        def of_piece(row: int, piece: slice, seen: Tensor) -> Tensor:
            queries, masks = query[row : row + 1, :, piece], mask[row : row + 1, :, piece]
            keys, values = (of_all[row : row + 1].index_select(2, seen) for of_all in (key, value))
            return attend(queries, keys, values, masks.index_select(3, seen), *more, **named)

        rows = [torch.cat([of_piece(row, *p) for p in pieces], 2) for row, pieces in enumerate(self.pieces)]
        return torch.cat(rows)

    def _is_of_the_rows(self, query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
        if mask is None or mask.dim() != 4 or query.dim() != 4 or len(query) != len(self.pieces):
            return False
        return (query.shape[2], key.shape[2], *mask.shape[2:]) == (self.tokens,) * 4
