"""Log-likelihoods of all cuts of a model that is read one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..models.shapes import padded_length, positions
from ..models.streaming import Store, Stream
from ..pruning.layer_set import LayerSet
from ..runtime.progress import Progress
from .batches import Batch, logits_at_once
from .capacity import Capacity, default_batch_tokens
from .inputs import Request, Score, Scores, in_order, inputs_of


class StreamedCutScorer:
    """As ``CutScorer``, for a model that is read one layer at a time (see ``streaming``): the numbers are
    those of its tree. Hidden states wait in host memory, or on disk in the folder ``spill``.

    A cut's hidden states are shared with every other cut that has run the same layers so far. There is no
    journal: an evaluation that was killed starts again.
    """

    def __init__(
        self,
        stream: Stream,
        blocks: Sequence[LayerSet],
        batch: int | None = None,
        spill: str | Path | None = None,
    ):
        self.stream, self.model = stream, stream.model
        self.blocks = list(blocks)
        self.padded = partial(padded_length, device=stream.device, longest=positions(self.model))
        self.capacity = Capacity(batch, default_batch_tokens(stream.device), self.padded)
        self.spill = spill
        self.layers_run = self.layers_separate = 0

    @torch.no_grad()
    def loglikelihoods(
        self, requests: Sequence[Request], max_length: int, label: str, journal: Path | None = None
    ) -> dict[LayerSet, list[Score]]:
        """As ``CutScorer.loglikelihoods``."""
        batches = [
            Batch.of(rows, self.stream.device, self.padded)
            for rows in self.capacity.batches(inputs_of(requests, max_length), share=False)
        ]
        store = Store(self.spill)
        states = [
            dict.fromkeys(self.blocks, store.keep(self.stream.embedded(batch.ids))) for batch in batches
        ]
        with Progress(f"{label}, streamed", len(self.stream.layers) * len(batches), "step") as progress:
            for i in self.stream.walk():
                for batch, state in zip(batches, states, strict=True):
                    self._advance(i, batch.ids, state, store)
                    progress.update()
        scores: Scores = {block: {} for block in self.blocks}
        for batch, state in zip(batches, states, strict=True):
            for block in self.blocks:
                scored = batch.gather_scores(state.pop(block)(), self.stream.head, logits_at_once(self.model))
                scores[block].update(batch.by_request(*scored))
        return in_order(scores, len(requests))

    def layer_counts(self) -> dict:
        """As ``CutScorer.layer_counts``."""
        return {"run": self.layers_run, "separate": self.layers_separate, "tree": True}

    def _advance(
        self, i: int, ids: Tensor, state: dict[LayerSet, Callable[[], Tensor]], store: Store
    ) -> None:
        """Replace the hidden states of every cut that has layer i by what that layer makes of them."""
        layer = self.stream.layer(i, ids)
        cuts: dict[Callable[[], Tensor], list[LayerSet]] = {}  # by the hidden states that they share
        for block in self.blocks:
            if i not in block:
                cuts.setdefault(state[block], []).append(block)
        for before, blocks in cuts.items():
            after = store.keep(layer(before()))
            state.update(dict.fromkeys(blocks, after))
            self.layers_run += 1
            self.layers_separate += len(blocks)
