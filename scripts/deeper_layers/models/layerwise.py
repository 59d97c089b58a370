"""The decoder layers of a model called one by one, apart from the model's own forward pass.

This works for any architecture whose layers are called one after the other, each with the last one's
hidden states: a forward pass in which no layer computes records the other arguments of every layer, and
each layer is then called with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import Tensor

from .layers import decoder_layers
from .shared_prefixes import SharedPrefixes


class LayerwiseModel:
    """The decoder layers of ``model``. ``outputs`` is what each layer returns, a tensor or a tuple or list
    that begins with one, as far as it is known: layers from there on cannot be passed by."""

    def __init__(self, model):
        self.model, self.layers = model, decoder_layers(model)
        self.outputs: list = []

    def arguments(
        self, ids: Tensor, last: int, shared: SharedPrefixes | None = None
    ) -> list[tuple[Tensor, tuple, dict]]:
        """What each of the layers 0..``last`` is given when those before it do nothing: hidden states
        [B, T, d], and the other arguments by place and by name. ``shared`` describes the rows of ``ids``
        where they are of several sequences; LookupError or TypeError for layers that cannot be told so."""
        if shared is None:
            return self._recorded(last, ids)
        plain = self._recorded(last, ids.new_zeros(1, shared.longest))
        here = self._recorded(last, ids, position_ids=shared.positions)
        layers = self.layers[: last + 1]
        return [
            (hidden, (), shared.named(layer, (others, named), alone))
            for layer, (hidden, others, named), (_, *alone) in zip(layers, here, plain, strict=True)
        ]

    def _recorded(self, last: int, ids: Tensor, **how) -> list[tuple[Tensor, tuple, dict]]:
        arguments = []

        def record(i: int, hidden: Tensor, others: tuple, named: dict) -> Tensor:
            arguments.append((hidden, others, named))
            if i == last:
                raise _Recorded
            return hidden

        with self._layers_do(record), suppress(_Recorded):
            self.model(ids, use_cache=False, **how)
        return arguments

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [P, V] of hidden states [P, d]: all that the model does after its last layer."""
        ids = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
        with self._layers_do(lambda *_: hidden[:, None]):
            return self.model(ids, use_cache=False).logits[:, 0]

    @contextmanager
    def _layers_do(self, action: Callable[[int, Tensor, tuple, dict], Tensor]) -> Iterator[None]:
        """In the context layer i computes nothing but ``action(i, hidden, other arguments, named ones)``."""

        def forward(i: int, *args, **named):
            hidden, *others = args or (named.pop("hidden_states"),)
            output = action(i, hidden, tuple(others), named)
            known = self.outputs[i]
            return type(known)((output, *known[1:])) if isinstance(known, tuple | list) else output

        before = [vars(layer).get("forward") for layer in self.layers]  # accelerate puts its own there
        try:
            for i, layer in enumerate(self.layers):
                layer.forward = partial(forward, i)
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                del layer.forward
                if own is not None:
                    layer.forward = own


class _Recorded(Exception):
    """The arguments asked for are known: the rest of the forward pass is not needed."""
