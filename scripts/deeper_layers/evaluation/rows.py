"""Rows of tokens for inputs that begin alike, such as questions after the same examples, or the endings of
one text: what they share stands in a row once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .inputs import SHARE, Input


@dataclass
class Row:
    """``inputs``, each of which has its first ``shared`` tokens in common with the one before, and adds the
    others to the row: ``tokens`` in all."""

    inputs: list[Input] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    tokens: int = 0

    def add(self, entry: Input, shared: int = 0) -> None:
        """Add an input that has its first ``shared`` tokens in common with the last one."""
        self.inputs.append(entry)
        self.shared.append(shared)
        self.tokens += len(entry.ids) - shared

    @property
    def ids(self) -> list[int]:
        """The row's tokens."""
        return [token for entry, shared in self._parts() for token in entry.ids[shared:]]

    @property
    def positions(self) -> list[int]:
        """Of each token in its input."""
        return [place for entry, shared in self._parts() for place in range(shared, len(entry.ids))]

    @property
    def paths(self) -> list[list[int]]:
        """For each input the places of its tokens in the row."""
        paths: list[list[int]] = [[]]
        end = 0
        for entry, shared in self._parts():
            start, end = end, end + len(entry.ids) - shared
            paths.append([*paths[-1][:shared], *range(start, end)])
        return paths[1:]

    def fill(self, sees: Tensor) -> None:
        """Set in ``sees``, bool [T, T] and false, which tokens (second index) are on the way to each one."""
        for path, shared in zip(self.paths, self.shared, strict=True):
            own = slice(path[shared], path[-1] + 1)
            sees[own, path[:shared]] = True
            sees[own, own] = torch.ones_like(sees[own, own]).tril()

    def _parts(self) -> Iterable[tuple[Input, int]]:
        return zip(self.inputs, self.shared, strict=True)


def row_of(entry: Input) -> Row:
    """The row of one input."""
    row = Row()
    row.add(entry)
    return row


def rows_of(inputs: Iterable[Input], most: int) -> list[Row]:
    """All ``inputs`` in rows. A row of several has at most ``most`` tokens."""
    rows: list[Row] = []
    before: tuple[int, ...] = ()
    for entry in sorted(inputs, key=lambda entry: entry.ids):
        shared = alike(before, entry.ids)
        before = entry.ids
        if SHARE * shared < len(entry.ids) or rows[-1].tokens + len(entry.ids) - shared > most:
            rows.append(Row())
            shared = 0
        rows[-1].add(entry, shared)
    return rows


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the first on."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
