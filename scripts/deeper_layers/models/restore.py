"""A model that is as it was after something was put on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from torch import nn


@contextmanager
def restored(model: nn.Module) -> Iterator[nn.Module]:
    """Undo, after the context, what happened to the modules of ``model`` within: modules put in place of
    others, parameters and buffers replaced, attributes and hooks set. Not the numbers of a tensor, where they
    were overwritten. No weight is copied."""
    states = [(module, dict(vars(module))) for module in model.modules()]
    for _, state in states:
        state |= {name: copy(value) for name, value in state.items() if isinstance(value, dict | set | list)}
    try:
        yield model
    finally:
        for module, state in states:
            vars(module).clear()
            vars(module).update(state)
