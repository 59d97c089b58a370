"""Memory and speed of every cut of a model, measured in one process.

The paper says that both fall linearly with the number of layers removed, and measured neither. The base is
loaded once and each cut made in memory, as the evaluation does; the cuts take turns, so that whatever else
the machine does in the meantime falls on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, StoppingCriteria

from ..checkpoints.cut_size import cut_size
from ..errors import UserError
from ..models.layers import removed
from ..pruning.layer_set import LayerSet
from ..reporting.columns import SPEEDS
from ..reporting.text import si
from ..runtime.memory import is_out_of_memory
from ..runtime.progress import Progress
from ..settings.speed import SpeedSettings


def measure(
    model: PreTrainedModel,
    manifest: dict,
    blocks: Sequence[LayerSet],
    settings: SpeedSettings,
    label: str,
) -> pd.DataFrame:
    """A row for each of ``blocks``: what is left of the model, the most memory it took, and its speed.

    ``memory_bytes``: weights, cache and activations. ``prefill`` and ``decode``: tokens per second, of
    the prompt and of greedy generation with a cache, the median of ``settings.repeats`` runs; ``_low`` and
    ``_high`` are their quartiles. ``manifest`` is that of the uncut checkpoint, ``label`` names the job to
    the person who watches. Raises UserError if memory runs out.
    """
    try:
        memory, seconds = _measure(model, blocks, settings, label)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"speed: {settings.batch} x {settings.prompt + settings.new} tokens do not fit into memory "
            "beside the model: ask for fewer, or for precision nf4"
        ) from None
    rows = []
    tokens = settings.batch * np.array([settings.prompt, settings.new - 1])
    for block in blocks:
        row = {"block": str(block), "n": block.n, **cut_size(manifest, block), "memory_bytes": memory[block]}
        for speed, values in zip(SPEEDS, (tokens / seconds[block]).T, strict=True):
            low, median, high = np.percentile(values, [25, 50, 75])
            row |= {speed: median, f"{speed}_low": low, f"{speed}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def table_lines(rows: pd.DataFrame, path: Path) -> str:
    """What was measured, for the person who asked for it: a line per cut, and the ``path`` of all of it."""
    lines = [f"{'cut':12} {'memory':>9} {'prompt':>11} {'writing':>11}   tokens/s ({path})"]
    for row in rows.to_dict("records"):
        memory, prefill, decode = si(row["memory_bytes"], "B"), si(row["prefill"]), si(row["decode"])
        lines.append(f"{row['block']:12} {memory:>9} {prefill:>11} {decode:>11}")
    return "\n".join(lines)


def _measure(
    model: PreTrainedModel, blocks: Sequence[LayerSet], settings: SpeedSettings, label: str
) -> tuple[dict[LayerSet, int], dict[LayerSet, list[tuple[float, float]]]]:
    """Most bytes, and (seconds of the prompt, of the rest) of each run, by block."""
    memory, seconds = {}, {block: [] for block in blocks}
    with Progress(label, total=len(blocks) * (1 + settings.repeats), unit="run") as progress:
        for block in blocks:  # what a first run allocates and compiles is not timed
            memory[block] = peak_memory(model, block, settings)
            progress.update()
        for turn in range(settings.repeats):
            for block in blocks[:: -1 if turn % 2 else 1]:
                with removed(model, block):
                    seconds[block].append(generate(model, settings))
                progress.update()
    return memory, seconds


class Clock(StoppingCriteria):
    """Notes when each token is there; stops nothing."""

    def __init__(self, device: torch.device):
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.times = [self.now()]

    def now(self) -> float:
        self.wait()
        return time.perf_counter()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_) -> torch.Tensor:
        self.times.append(self.now())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.no_grad()
def generate(model: PreTrainedModel, settings: SpeedSettings) -> tuple[float, float]:
    """Seconds until the first new token, and from there to the last."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = np.random.default_rng(0).integers(vocabulary, size=(settings.batch, settings.prompt))
    ids = torch.as_tensor(ids, device=model.device)
    clock = Clock(model.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=settings.new,
        eos_token_id=None,  # no token ends it early
        pad_token_id=0,
        stopping_criteria=[clock],
    )
    start, first, *_, last = clock.times
    return first - start, last - first


def peak_memory(model: PreTrainedModel, block: LayerSet, settings: SpeedSettings) -> int:
    """Most bytes that the model without ``block`` takes while it generates: its weights, the cache, the
    activations. On a GPU as torch counts them, less the removed layers, which stay loaded for the other
    cuts; on a CPU its weights and the most that torch has allocated beyond them."""
    if model.device.type == "cuda":
        full = footprint(model)
        torch.cuda.reset_peak_memory_stats()
        with removed(model, block):
            generate(model, settings)
            gone = full - footprint(model)
        return torch.cuda.max_memory_allocated() - gone
    with removed(model, block):
        return footprint(model) + most_allocated(lambda: generate(model, settings))


def footprint(model: PreTrainedModel) -> int:
    """Bytes of parameters and buffers and, in NF4, of the scales beside them, which transformers leaves out:
    3 % of the 4-bit weights."""
    scales = {}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            for tensor in (state.absmax, state.code, state.offset):
                if tensor is not None:
                    scales[tensor.data_ptr()] = tensor.nbytes
            state = state.state2  # the scales of the scales
    return model.get_memory_footprint() + sum(scales.values())


def most_allocated(action: Callable[[], object]) -> int:
    """Most bytes in the tensors that ``action`` makes on the CPU, at any time."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        action()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(accumulate(changes), default=0)
