"""Do inputs that share a row have the logits there that each has by itself?"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..models.layers import decoder_layers
from ..pruning.layer_set import FULL
from ..pruning.trie import trie
from ..runtime.memory import is_out_of_memory
from ..runtime.provenance import record
from .batches import Batch
from .layer_tree import FAULTS, LayerTree
from .rows import Row, row_of

log = logging.getLogger(__name__)

TRIED, PLACES = 3, 16  # inputs of a row, and their last tokens, that are compared


def is_exact(tree: LayerTree, row: Row) -> bool:
    """Whether the uncut model gives the last inputs of ``row``, which stand furthest from where they stand
    alone, the logits that they have alone, but for rounding. The difference is recorded, and told if the
    answer is no. An error that says that memory ran out is raised."""
    name = type(tree.model).__name__
    try:
        off = _difference(tree, row)
    except FAULTS as error:
        if is_out_of_memory(error):
            raise
        log.warning("%s: its sequences cannot share what they begin with (%s)", name, error)
        return False
    record(prefix_check={"relative_difference": off})
    if is_rounding(off, tree.model.dtype):
        return True
    log.warning("%s: sequences that share what they begin with are off by %.2g", name, off)
    return False


@torch.no_grad()
def _difference(tree: LayerTree, row: Row) -> float:
    """The ``relative_difference`` of the last tokens of the last inputs."""
    root = trie([FULL], len(decoder_layers(tree.model)))
    together = Batch.of([row], tree.model.device)
    ((_, shared),) = tree.states(together.ids, root, together.shared)
    found, expected = [], []
    for entry, path in zip(row.inputs[-TRIED:], row.paths[-TRIED:], strict=True):
        ((_, alone),) = tree.states(Batch.of([row_of(entry)], tree.model.device).ids, root)
        found.append(shared[0, path[-PLACES:]])
        expected.append(alone[0, -PLACES:])
    return relative_difference(tree.head(torch.cat(found)).float(), tree.head(torch.cat(expected)).float())


def is_rounding(off: float, dtype: torch.dtype) -> bool:
    """Whether a relative difference of logits is one of rounding. In 16 bits kernels sum in another order for
    rows of another length: 5 % on SmolLM2, where sequences that see each other are off by 200 %."""
    return off <= (1e-3 if dtype == torch.float32 else 0.2)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of the logits of a token, [P, V], relative to their spread (Euclidean norms)."""
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    off = (found - expected).norm(dim=-1) / spread
    return float(off.max().nan_to_num(nan=torch.inf))
