"""Angular distances between the inputs of all pairs of layers, from one forward pass.

Paper, section 3.2: x^(l) is the input of layer l, x^(L) the output of the last layer before the final
norm, and d(x^(l), x^(l+n)) = arccos(cos(x_T^(l), x_T^(l+n))) / pi at the final token T of a sequence;
arccos per sample, then the mean over samples.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models.layers import decoder_layers
from ..models.streaming import Store, Stream
from ..runtime.files import atomic_write
from ..runtime.progress import Progress
from ..settings.distances import DistanceSettings
from .passes import in_batches, streamed_batches


@dataclass
class AngularDistances:
    """Running mean and variance of the distance of every pair of boundaries, in float64 on the CPU.

    Memory is two (L + 1, L + 1) matrices, whatever the number of samples.
    """

    n_layers: int
    samples: int = 0

    def __post_init__(self):
        size = self.n_layers + 1
        self.total = torch.zeros(size, size, dtype=torch.float64)
        self.squares = torch.zeros(size, size, dtype=torch.float64)

    def add(self, states: Tensor) -> None:
        """Count the final-token states of a batch: [L + 1, B, H], boundary l = 0..L, any float type."""
        states = states.to(torch.float64).transpose(0, 1)  # [B, L + 1, H]
        gram = states @ states.transpose(1, 2)  # [B, L + 1, L + 1]
        norms = gram.diagonal(dim1=1, dim2=2).sqrt()
        cosine = gram / (norms[:, :, None] * norms[:, None, :])
        # Rounding can push a cosine past 1, where arccos is NaN.
        distance = torch.arccos(cosine.clamp(-1.0, 1.0)) / torch.pi
        total, squares = distance.sum(0).cpu(), distance.square().sum(0).cpu()
        self.total += total  # from here on nothing fails for want of memory: all of it counts, or nothing
        self.squares += squares
        self.samples += len(states)

    @property
    def mean(self) -> Tensor:
        """Mean distance of boundaries (l, m), float64 [L + 1, L + 1], in [0, 1]."""
        return self.total / self.samples

    @property
    def stderr(self) -> Tensor:
        """Standard error of the mean, float64 [L + 1, L + 1]; NaN for a single sample."""
        variance = (self.squares - self.total.square() / self.samples).clamp(min=0) / (self.samples - 1)
        return (variance / self.samples).sqrt()

    def write(self, path: str | Path) -> None:
        """Write distances.csv: first, n, distance, stderr, samples for n = 1..L and first = 0..L-n."""
        mean, stderr = self.mean, self.stderr
        with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["first", "n", "distance", "stderr", "samples"])
            for n in range(1, self.n_layers + 1):
                for first in range(self.n_layers - n + 1):
                    cell = first, first + n
                    out.writerow([first, n, f"{mean[cell]:.10g}", f"{stderr[cell]:.6g}", self.samples])


@contextmanager
def boundary_states(layers: nn.ModuleList, at: list[Tensor]) -> Iterator[list[Tensor]]:
    """Collect, during forward passes, x^(0)..x^(L) at the positions ``at[0]`` (int64 [B]): L + 1 of [B, H].

    Hooks, not ``output_hidden_states``: the latter's last entry is taken after the final norm, and it
    keeps L + 1 whole sequences alive.
    """
    found: list[Tensor] = []

    def keep(hidden: Tensor) -> None:
        found.append(final(hidden, at[0]))

    def before(module, args, kwargs):
        found.clear()
        keep(args[0] if args else kwargs["hidden_states"])

    def after(module, args, output):
        keep(output if isinstance(output, Tensor) else output[0])

    hooks = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def final(hidden: Tensor, at: Tensor) -> Tensor:
    """The states [B, d] at the positions ``at`` (int64 [B]) of hidden states [B, T, d]."""
    return hidden[torch.arange(len(hidden), device=hidden.device), at]


@torch.inference_mode()
def angular_distances(
    model: nn.Module, documents: Sequence[np.ndarray], batch_tokens: int = DistanceSettings.batch_tokens
) -> AngularDistances:
    """The distances of all (first, n) over ``documents`` (int64 [T] each), at the cost of one forward pass.

    The decoder runs without the language-model head. Rows are padded on the right and carry no mask:
    under causal attention a final token does not see what follows it. When a batch does not fit in memory,
    it and all later ones are halved; UserError if not even one document fits.
    """
    layers = decoder_layers(model)
    sums = AngularDistances(len(layers))
    at: list[Tensor] = [torch.empty(0)]

    def measure(ids: Tensor, last: Tensor) -> None:
        at[0] = last
        states.clear()
        model.base_model(input_ids=ids, use_cache=False)
        sums.add(torch.stack(states))

    with boundary_states(layers, at) as states:
        in_batches(model, documents, batch_tokens, measure, "distances")
    return sums


@torch.no_grad()
def streamed_distances(
    stream: Stream,
    documents: Sequence[np.ndarray],
    batch_tokens: int = DistanceSettings.batch_tokens,
    spill: str | Path | None = None,
) -> AngularDistances:
    """What ``angular_distances`` gives, to the last digit in fp32, for a model larger than memory: all
    documents pass through one layer after the other. Their hidden states wait in host memory, or on disk in
    the folder ``spill``."""
    store = Store(spill)
    batches = streamed_batches(stream, documents, batch_tokens)
    states = [store.keep(stream.embedded(ids)) for ids, _ in batches]
    finals = [[store.keep(final(s(), at))] for s, (_, at) in zip(states, batches, strict=True)]
    steps = len(stream.layers) * len(batches)
    with Progress("distances, streamed", steps, "step") as progress:
        for i in stream.walk():
            for b, (ids, at) in enumerate(batches):
                hidden = states[b]()
                states[b] = None  # its place is free for what follows
                hidden = stream.layer(i, ids)(hidden)
                states[b] = store.keep(hidden)
                finals[b].append(store.keep(final(hidden, at)))
                progress.update()
    sums = AngularDistances(len(stream.layers))
    for boundaries in finals:
        sums.add(torch.stack([state() for state in boundaries]))
    return sums
