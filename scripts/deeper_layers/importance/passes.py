"""A forward pass over documents, in batches that fit in memory or layer by layer, and what it measured."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor, nn

from ..data.batches import batches_by_length, padded
from ..data.tokens import Tokens
from ..errors import UserError
from ..models.load import load_model
from ..models.shapes import padded_length, positions
from ..models.streaming import Stream
from ..runtime.files import write_json
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress
from ..runtime.provenance import provenance


def in_batches(
    model: nn.Module,
    documents: Sequence[np.ndarray],
    batch_tokens: int,
    measure: Callable[[Tensor, Tensor], None],
    what: str,
) -> None:
    """``measure(ids, last)`` of all ``documents`` (int64 [T] each), padded on the right without a mask: under
    causal attention no token sees what follows it. It counts all of a batch, or fails and counts nothing.

    When a batch does not fit in memory, it and all later ones are halved; UserError if not even one document
    fits. ``what`` is measured, in words.
    """
    device = next(model.parameters()).device
    to = partial(padded_length, device=device, longest=positions(model))

    def fits(batch: list[int]) -> bool:
        try:
            measure(*(t.to(device) for t in padded([documents[i] for i in batch], to=to)))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    batches = batches_by_length([len(d) for d in documents], batch_tokens, to)[::-1]
    with Progress(what, len(documents)) as progress:
        while batches:
            if fits(batches[-1]):
                progress.update(len(batches.pop()))
                continue
            longest, rows = len(documents[batches[-1][0]]), len(batches[-1])
            if rows == 1:
                raise UserError(
                    f"one document of {longest} tokens does not fit into memory: measure the {what} with "
                    "precision nf4, with less length, or on a card with more memory"
                )
            free_memory()
            rest = [i for batch in reversed(batches) for i in batch]
            smaller = batches_by_length([len(documents[i]) for i in rest], to(longest) * (rows // 2), to)
            batches = [[rest[i] for i in batch] for batch in reversed(smaller)]


def streamed_batches(
    stream: Stream, documents: Sequence[np.ndarray], batch_tokens: int
) -> list[tuple[Tensor, Tensor]]:
    """``documents`` as ``in_batches`` has them, (ids, last) of each batch, for a model that is streamed."""
    to = partial(padded_length, device=stream.device, longest=positions(stream.model))
    return [
        tuple(t.to(stream.device) for t in padded([documents[i] for i in batch], to=to))
        for batch in batches_by_length([len(d) for d in documents], batch_tokens, to)
    ]


def measure(options: Namespace, in_memory: Callable, streamed: Callable) -> None:
    """What ``options`` of a program ask for, with the settings of the distances: ``in_memory(model,
    documents, batch_tokens)`` or ``streamed(stream, documents, batch_tokens, spill)``, written to
    ``options.out``, and a JSON beside it that says of what it is."""
    documents = Tokens(options.tokens).first(options.samples, options.length)
    model = options.checkpoint, options.precision, options.trust_remote_code
    if options.stream:
        found = streamed(Stream(*model), documents, options.batch_tokens, options.spill)
    else:
        found = in_memory(load_model(*model), documents, options.batch_tokens)
    found.write(options.out)
    settings = {key: getattr(options, key) for key in ("samples", "length", "precision", "stream")}
    write_json(options.out.with_suffix(".json"), provenance(checkpoint=options.checkpoint, **settings))
