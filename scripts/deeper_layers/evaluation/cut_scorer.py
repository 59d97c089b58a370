"""Log-likelihoods of all cuts of one model at once: what cuts have in common, from the first layer on, is run
once for all of them.

The cuts of a model differ only in which layers are skipped, so they form a trie (``pruning.trie``): where a
removed run of layers begins, a branch leaves the others and goes on with the next layer kept. A batch goes
through it depth first, so that few states are in memory at any time: one of the trunk and one of a branch,
where each cut is one run of layers. Final norm and head are run only where a token is scored.

Inputs that begin alike, such as the questions of a subject after the same examples, share a row in which that
is run once (see ``rows``).

The layers are called one by one (see ``layerwise``). A model for which that is not exact is found out at the
start, on a small batch, and each of its cuts is then run as an ordinary model. Shared rows are tried too;
where they are not exact, each input has a row to itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..models.layers import decoder_layers, removed
from ..models.shapes import padded_length, positions
from ..pruning.layer_set import LayerSet
from ..pruning.trie import trie
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress
from ..runtime.provenance import record
from .batches import Batch, logits_at_once
from .capacity import Capacity, default_batch_tokens
from .inputs import Input, Request, Score, Scores, add, in_order, inputs_of
from .journal import Journal
from .layer_tree import FAULTS, LayerTree
from .rows import Row, row_of
from .sharing import is_exact

log = logging.getLogger(__name__)


class CutScorer:
    """The cuts of a model, scored together.

    Args:
        model: the uncut model.
        blocks: its cuts.
        batch: sequences per batch; None takes as many as make a fixed number of tokens. See ``capacity``.
        tree: False runs every cut by itself.

    Raises:
        UserError: a cut does not fit the model.
    """

    def __init__(self, model, blocks: Sequence[LayerSet], batch: int | None = None, tree: bool = True):
        self.model = model
        self.blocks = list(blocks)
        self.padded = partial(padded_length, device=model.device, longest=positions(model))
        self.capacity = Capacity(batch, default_batch_tokens(model.device), self.padded)
        n_layers = len(decoder_layers(model))
        self.root = trie(self.blocks, n_layers)
        self.layers_of_cuts = sum(n_layers - block.n for block in self.blocks)
        self.layers_run = self.layers_separate = 0
        self.tree = self._exact_tree() if tree else None

    def loglikelihoods(
        self,
        requests: Sequence[Request],
        max_length: int,
        label: str,
        journal: Path | None = None,
        share: bool = False,
    ) -> dict[LayerSet, list[Score]]:
        """The score of every request, for every block: the sum of the log-probabilities (float32 each) of
        the continuation's tokens, and whether each of them is the likeliest.

        Args:
            requests: token ids of contexts and continuations.
            max_length: sequences of more than one token above it lose their first ones, as in lm-eval.
            label: names the job to the person who watches.
            journal: folder of a file to which scores are added after each batch; a later call with the same
                requests goes on from there.
            share: run what sequences have in common from their first token on once.

        Raises:
            UserError: a continuation is longer than ``max_length``, or one sequence does not fit into memory.
        """
        inputs = inputs_of(requests, max_length)
        scores: Scores = {block: {} for block in self.blocks}
        entries = Journal(journal, inputs, self.blocks)
        done = 0
        with Progress(label, total=len(inputs), unit="input") as progress:
            for upto, batch_scores in entries.read():
                add(scores, batch_scores)
                progress.update(upto - done)
                done = upto
            share = share and self.can_share(inputs)
            known, batches = scores[self.blocks[0]], self.capacity.batches(inputs, share)
            # A killed run may have made smaller ones, for want of memory: what is left is dealt anew.
            if any(len({e.number in known for row in rows for e in row.inputs}) > 1 for rows in batches):
                batches = self.capacity.batches([e for e in inputs if e.number not in known], share)
            todo = [rows for rows in batches if rows[0].inputs[0].number not in known]
            while todo:
                batch_scores = self._score_batch(todo[0])
                if batch_scores is None:
                    left = [entry for rows in todo for row in rows for entry in row.inputs]
                    todo = self.capacity.batches(left, share)
                    continue
                size = sum(len(row.inputs) for row in todo.pop(0))
                done += size
                entries.write(done, batch_scores)
                add(scores, batch_scores)
                progress.update(size)
        return in_order(scores, len(requests))

    def layer_counts(self) -> dict:
        """Calls of a layer with a batch: those ``run``, and those of each cut evaluated by itself."""
        return {"run": self.layers_run, "separate": self.layers_separate, "tree": self.tree is not None}

    def _score_batch(self, rows: list[Row]) -> Scores | None:
        """The scores of a batch; None, with less memory to be used from here on, if that has run out."""
        try:
            batch = Batch.of(rows, self.model.device, self.padded)
            return {cut: batch.by_request(*scored) for cut, *scored in self._scores(batch)}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.capacity.shrink(rows)
        free_memory()
        return None

    def can_share(self, inputs: Sequence[Input]) -> bool:
        """Whether ``inputs`` may share rows: tried on the longest of these rows."""
        while self.tree is not None:
            row = self.capacity.batches(inputs, share=True)[0][0]  # of several inputs, if any is
            if len(row.inputs) == 1:
                break
            try:
                return is_exact(self.tree, row)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self.capacity.shrink([row])
            free_memory()
        return False

    @torch.no_grad()
    def _scores(self, batch: Batch) -> Iterator[tuple[LayerSet, Tensor, Tensor]]:
        """For each block the log-probability of every scored token, and whether it is the likeliest, [F]."""
        piece = logits_at_once(self.model)
        if self.tree:
            for block, states in self.tree.states(batch.ids, self.root, batch.shared):
                scores = batch.gather_scores(states, self.tree.head, piece)
                del states  # before the next branch
                yield block, *scores
        else:
            for block in self.blocks:
                with removed(self.model, block):
                    logits = self.model(batch.ids, use_cache=False).logits
                yield block, *batch.gather_scores(logits, lambda logits: logits, piece)
        self.layers_run += self.root.layers if self.tree else self.layers_of_cuts
        self.layers_separate += self.layers_of_cuts

    def _make_tree(self) -> LayerTree:
        return LayerTree(self.model)

    def _exact_tree(self) -> LayerTree | None:
        """The tree, if it gives the same numbers as each cut by itself on two short sequences. All their
        places are scored: then both ways compute products of the same shapes, which are equal in bf16 too."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        ids = np.random.default_rng(0).integers(vocabulary, size=(2, 17)).tolist()
        inputs = inputs_of([(row[:1], row[1:]) for row in ids], 17)
        batch = Batch.of([row_of(entry) for entry in inputs], self.model.device)
        self.tree = None
        separate = {block: p for block, p, _ in self._scores(batch)}
        try:
            self.tree = self._make_tree()
            together = {block: p for block, p, _ in self._scores(batch)}
        except FAULTS as error:
            log.warning("%s: its layers cannot be called one by one (%s)", type(self.model).__name__, error)
            return None
        finally:
            self.layers_run = self.layers_separate = 0
        off = {block: (together[block] - separate[block]).abs().mean().item() for block in self.blocks}
        record(tree_check={"mean_difference_nats": max(off.values())})
        if all(_agree(together[block], separate[block], self.model.dtype) for block in self.blocks):
            return self.tree
        log.warning(
            "%s: calling its layers one by one is off by %.2g", type(self.model).__name__, max(off.values())
        )
        return None


def _agree(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two sets of log-probabilities [F] are the same but for rounding. In 16 bits a kernel may sum in
    another order: allowed is a mean difference far below that of one wrong layer, which is 7 % to 23 % of the
    standard deviation over the tokens (docs/methods.md)."""
    off = (found - expected).abs()
    if off.max() <= 16 * torch.finfo(torch.float32).eps * expected.abs().max():
        return True
    return dtype != torch.float32 and bool(off.mean() <= 0.005 * expected.std())
