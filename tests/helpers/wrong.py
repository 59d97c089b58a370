"""Faults to put in: wrong kernels of bitsandbytes, trees that do not run the layers as the model does, and
rows whose sequences are not what they are alone."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import torch
from torch.nn import functional

from deeper_layers.evaluation.layer_tree import LayerTree
from deeper_layers.models import nf4
from deeper_layers.models.shared_prefixes import SharedPrefixes


@contextmanager
def kernel(operator: str, function):
    """Within the context ``function`` is the CPU kernel of an operator of bitsandbytes."""
    library = torch.library.Library("bitsandbytes", "IMPL")
    with warnings.catch_warnings(category=UserWarning, action="ignore"):
        library.impl(operator, function, "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def scales_of_the_next_block(packed, absmax, blocksize, quant_type, shape, dtype):
    return nf4.dequantise(packed, absmax.roll(1), blocksize, quant_type, shape, dtype)


def last_columns_missing(packed, absmax, blocksize, quant_type, shape, dtype):
    values = nf4.dequantise(packed, absmax, blocksize, quant_type, shape, dtype)
    values[..., shape[-1] // 64 * 64 - 1 :] = 0
    return values


def without_attention(layers, i, call, hidden):
    if i != len(layers) // 2:
        return call(i, hidden)
    return hidden + layers[i].mlp(layers[i].post_attention_layernorm(hidden))


def swapped(layers, i, call, hidden):
    middle = len(layers) // 2
    return call({middle: middle - 1, middle - 1: middle}.get(i, i), hidden)


def too_large(layers, i, call, hidden):
    return call(i, hidden) * (1.1 if i == 1 else 1)


def with_noise(layers, i, call, hidden):
    hidden = call(i, hidden)
    return hidden + 0.1 * hidden.std() * torch.randn_like(hidden) if i == 1 else hidden


def seeing_the_future(layers, i, call, hidden):
    right = functional.scaled_dot_product_attention
    if i == len(layers) // 2:
        functional.scaled_dot_product_attention = lambda *args, **named: right(
            *args, **named | {"is_causal": False}
        )
    try:
        return call(i, hidden)
    finally:
        functional.scaled_dot_product_attention = right


WRONG_TREES = [without_attention, swapped, too_large, with_noise, seeing_the_future]


@contextmanager
def wrong_tree(kind):
    """Within the context a LayerTree runs its layers as ``kind`` does."""
    right = LayerTree._start

    def start(self, *rows):
        before, call = right(self, *rows)
        return before, lambda i, hidden: kind(self.layers, i, call, hidden)

    LayerTree._start = start
    try:
        yield
    finally:
        LayerTree._start = right


def seeing_each_other(shared):
    """Its sequences see those before them."""
    shared.sees = torch.ones_like(shared.sees).tril()


def at_places_of_the_row(shared):
    """Tokens stand where they are in the row."""
    shared.positions = torch.arange(shared.positions.shape[1]).expand_as(shared.positions)


def without_the_beginning(shared):
    """The last sequences see next to nothing of what is shared."""
    shared.sees[:, shared.sees.shape[1] // 2 :, :36] = False


WRONG_ROWS = [seeing_each_other, at_places_of_the_row, without_the_beginning]


@contextmanager
def wrong_rows(kind):
    """Within the context rows of several sequences are wrong in this way."""
    right = SharedPrefixes.__init__

    def init(self, *args, **named):
        right(self, *args, **named)
        kind(self)

    SharedPrefixes.__init__ = init
    try:
        yield
    finally:
        SharedPrefixes.__init__ = right
