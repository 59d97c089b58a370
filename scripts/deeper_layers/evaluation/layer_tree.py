"""The decoder layers of a model, run for all its cuts together: what these have in common runs once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from ..models.layerwise import LayerwiseModel
from ..models.shared_prefixes import SharedPrefixes
from ..pruning.layer_set import LayerSet
from ..pruning.trie import Node

# What a model may raise when it is run in another way than its author had in mind.
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class LayerTree(LayerwiseModel):
    """The decoder layers of ``model``, called in the order of a trie of cuts."""

    def __init__(self, model):
        super().__init__(model)
        self.outputs = self._outputs()

    def states(
        self, ids: Tensor, root: Node, shared: SharedPrefixes | None = None
    ) -> Iterator[tuple[LayerSet, Tensor]]:
        """(cut, hidden states [B, T, d] after its last layer, before the final norm) of every cut in the trie
        at ``root``, for the sequences ``ids`` [B, T], or the rows of sequences that ``shared`` describes.

        Depth first, so that no more states are in memory than the trie says, and the one being computed.
        """
        hidden, call = self._start(ids, shared)
        todo = [(root, hidden)]
        del hidden
        while todo:
            node, hidden = todo.pop()
            if node.layer is not None:
                hidden = call(node.layer, hidden)
            if node.cut is not None:
                yield node.cut, hidden
            todo += [(child, hidden) for child in reversed(node.children)]

    def _start(
        self, ids: Tensor, shared: SharedPrefixes | None = None
    ) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        """The hidden states before layer 0, and a function that runs layer i on hidden states."""
        arguments = self.arguments(ids, len(self.layers) - 1, shared)
        before = arguments[0][0]
        arguments = [(others, named) for _, others, named in arguments]

        def call(i: int, hidden: Tensor) -> Tensor:
            others, named = arguments[i]
            with shared.attention() if shared else nullcontext():
                output = self.layers[i](hidden, *others, **named)
            return output[0] if isinstance(output, tuple | list) else output

        return before, call

    def _outputs(self) -> list:
        """What each layer returns for one token."""
        outputs = []
        hooks = [
            layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in self.layers
        ]
        try:
            with torch.no_grad():
                self.model(torch.zeros(1, 1, dtype=torch.long, device=self.model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs
