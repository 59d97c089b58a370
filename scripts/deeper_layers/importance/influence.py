"""Block Influence of every layer (ShortGPT, arXiv 2403.03853): BI_i = 1 - mean over all tokens of
cos(x^(i), x^(i+1)), where x^(i) is the input of layer i and x^(L) the output of the last one."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.statistics import per_token
from ..models.layers import decoder_layers
from ..models.streaming import Store, Stream
from ..runtime.files import atomic_write
from ..runtime.progress import Progress
from ..settings.distances import DistanceSettings
from .passes import in_batches, streamed_batches


@dataclass
class BlockInfluence:
    """Of each document and layer the sum over tokens of 1 - cos, float64 [D, L], and its number of tokens."""

    n_layers: int
    sums: list[Tensor] = field(default_factory=list)  # [L] each
    tokens: list[int] = field(default_factory=list)

    def add(self, changes: Tensor, lengths: Sequence[int]) -> None:
        """Count a batch: ``changes`` (float64 [L, B, T]), of which a row's first ``length`` are tokens."""
        for row, length in enumerate(lengths):
            self.sums.append(changes[:, row, :length].sum(1).cpu())
            self.tokens.append(int(length))

    @property
    def mean(self) -> np.ndarray:
        """BI of each layer, float64 [L]."""
        return self._values()[0]

    @property
    def stderr(self) -> np.ndarray:
        """Its standard error with documents as the sample, float64 [L]; NaN for one."""
        return self._values()[1]

    def _values(self) -> tuple[np.ndarray, np.ndarray]:
        return per_token(torch.stack(self.sums).numpy(), np.array(self.tokens))

    def write(self, path: str | Path) -> None:
        """Write influence.csv: layer, influence, stderr, tokens."""
        with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["layer", "influence", "stderr", "tokens"])
            for layer, (mean, error) in enumerate(zip(*self._values(), strict=True)):
                out.writerow([layer, f"{mean:.10g}", f"{error:.6g}", sum(self.tokens)])


def change(before: Tensor, after: Tensor) -> Tensor:
    """1 - cos of hidden states [B, T, d], float64 [B, T]."""
    return 1 - nn.functional.cosine_similarity(before.double(), after.double(), dim=-1, eps=0)


@torch.inference_mode()
def block_influence(
    model: nn.Module, documents: Sequence[np.ndarray], batch_tokens: int = DistanceSettings.batch_tokens
) -> BlockInfluence:
    """BI over all tokens of ``documents`` (int64 [T] each), at the cost of one forward pass without the head.
    When a batch does not fit in memory, it and all later ones are halved; UserError if not even one document
    fits."""
    layers, changes = decoder_layers(model), []
    found = BlockInfluence(len(layers))

    def keep(_module, args, named, output) -> None:
        before = args[0] if args else named["hidden_states"]
        changes.append(change(before, output if isinstance(output, Tensor) else output[0]))

    def measure(ids: Tensor, at: Tensor) -> None:
        changes.clear()
        model.base_model(input_ids=ids, use_cache=False)
        found.add(torch.stack(changes), (at + 1).tolist())

    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in layers]
    try:
        in_batches(model, documents, batch_tokens, measure, "influence")
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def streamed_influence(
    stream: Stream,
    documents: Sequence[np.ndarray],
    batch_tokens: int = DistanceSettings.batch_tokens,
    spill: str | Path | None = None,
) -> BlockInfluence:
    """The same of a model larger than memory: all documents pass through one layer after the other."""
    store = Store(spill)
    batches = streamed_batches(stream, documents, batch_tokens)
    states = [store.keep(stream.embedded(ids)) for ids, _ in batches]
    changes: list[list[Tensor]] = [[] for _ in batches]
    with Progress("influence, streamed", len(stream.layers) * len(batches), "step") as progress:
        for i in stream.walk():
            for b, (ids, _) in enumerate(batches):
                before = states[b]()
                states[b] = None  # its place is free for what follows
                after = stream.layer(i, ids)(before)
                changes[b].append(change(before, after).cpu())
                states[b] = store.keep(after)
                progress.update()
    found = BlockInfluence(len(stream.layers))
    for of_layers, (_, at) in zip(changes, batches, strict=True):
        found.add(torch.stack(of_layers), (at + 1).tolist())
    return found
