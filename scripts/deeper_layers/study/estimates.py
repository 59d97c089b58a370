"""What a job needs of a machine, from the shape of its model and the settings of its stage.

For schedulers and for the plan of a study, not for results. Estimates err on the large side. A job that was
stopped all the same is tried again with more (``attempt``), and goes on where it was. All arguments are
values, which ``workload`` takes from a study. No torch: Snakemake asks while it builds its graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..checkpoints.shape import BYTES, Shape
from ..healing.method import Demand
from ..pruning.by_loss import blocks_of, single_layers
from ..pruning.layer_set import LayerSet
from ..pruning.selection import PendingBlock
from ..pruning.trie import trie
from ..settings.suites import computed
from .gpu_specs import GpuSpec
from .token_counts import DECODE_COST, SuiteTokens, tokens_per_document

DAY = 24 * 60  # minutes: partitions often allow no more, and a job that reaches it goes on with the next
CPU_FLOPS = 50e9  # of a thread in products of fp32, where nobody has measured it (``pace``)
# Of that, what a model of a width reaches: half at HALF_WIDTH. Measured: a quarter at 128, nearly all at 576.
HALF_WIDTH = 384
BATCH_MB = 6000  # for a batch of an evaluation, which shrinks to what is free
FORWARD, TRAINING = 2, 6  # floating-point operations per token and parameter
SHARD = 10e9  # bytes, at most usual


@dataclass(frozen=True)
class Work:
    """The computing of one job, and what it needs for that.

    Attributes:
        shape: of the model that is run.
        precision: of its weights in memory: fp32, bf16 or nf4.
        gpu: the GPU that it runs on; None for the CPU.
        tokens: that are read in all.
        flops_per_param: floating-point operations per token and active parameter.
        batch_mb: memory beside the weights.
        streamed: whether only two layers and the embeddings are in memory at a time.
        offload_mb: memory of the host for hidden states between two layers of a streamed model.
        cpu_flops: of a thread, in products of fp32.
    """

    shape: Shape
    precision: str
    gpu: GpuSpec | None
    tokens: float
    flops_per_param: float = FORWARD
    batch_mb: float = BATCH_MB
    streamed: bool = False
    offload_mb: float = 0
    cpu_flops: float = CPU_FLOPS

    @property
    def gpus(self) -> int:
        return 0 if self.gpu is None else 1

    @property
    def resident(self) -> Shape:
        """What is in memory at a time."""
        return replace(self.shape, layers=2) if self.streamed else self.shape

    @property
    def weights_mb(self) -> float:
        return sum(params * bytes_ for params, bytes_ in self.resident.storage(self.precision)) / 1e6

    @property
    def load_seconds(self) -> float:
        """To read the weights from a file at 1 GB a second: in 16 bits, where they are in 4 in memory."""
        bytes_ = max(2, BYTES.get(self.precision, 0))
        return bytes_ * self.shape.params / 1e9

    @property
    def threads(self) -> int:
        """Beside a GPU, some serve the data. On a CPU a small model is fastest with one thread; above, one
        for each 50 million parameters, at most 16."""
        return 8 if self.gpu else max(1, min(16, int(self.shape.params / 50e6)))

    @property
    def seconds(self) -> float:
        """Of computing, from start to end of the tokens."""
        reached = self.shape.width / (self.shape.width + HALF_WIDTH)
        on_cpu = reached * self.cpu_flops * self.threads
        training = self.flops_per_param > FORWARD
        flops = self.gpu.reached(training) * self.gpu.peak_flops if self.gpu else on_cpu
        return self.flops_per_param * self.shape.active_params * self.tokens / flops

    @property
    def minutes(self) -> float:
        """From start to end, on the safe side: 15 to start, and twice the time of computing."""
        return 15 + 2 * self.seconds / 60

    def gpu_mem_mb(self, attempt: int = 1) -> int:
        """The weights, a tenth more, and the batch. 0 without a GPU."""
        return self.gpus * math.ceil((1.1 * self.weights_mb + self.batch_mb) * _memory_factor(attempt))

    def mem_mb(self, attempt: int = 1) -> int:
        """On a CPU twice the weights and 4 GB; beside a GPU, through which the weights only pass, 8 GB and
        half a byte for each parameter."""
        need = 8000 + 0.5 * self.resident.params / 1e6 if self.gpu else 4000 + 2 * self.weights_mb
        return math.ceil((need + self.offload_mb) * _memory_factor(attempt))

    def runtime(self, attempt: int = 1) -> int:
        """Minutes that a job asks for: the double in the second attempt, and so on; at most a day."""
        return min(DAY, math.ceil(self.minutes * attempt))


def _memory_factor(attempt: int) -> float:
    """Memory grows by half with each attempt, up to the fourth: those after it are for want of time."""
    return 1 + 0.5 * (min(attempt, 4) - 1)


def pretraining(shape: Shape, settings: Mapping[str, Any]) -> Work:
    """Training of the base model by the settings ``pretrain``: forward and backward, on the CPU."""
    tokens = settings["steps"] * settings["batch"] * settings["length"]
    return Work(shape, "fp32", None, tokens, TRAINING)


def distances(
    shape: Shape, settings: Mapping[str, Any], text: Mapping[str, Any], gpu: GpuSpec | None
) -> Work:
    """The angular distances of a model by the settings ``distances``, on documents of ``text``, an entry of
    ``texts``."""
    tokens = settings["samples"] * tokens_per_document(settings, text)
    return _streamed(Work(shape, settings["precision"], gpu, tokens), settings)


def losses(
    shape: Shape, settings: Mapping[str, Any], text: Mapping[str, Any], gpu: GpuSpec | None, layers: int
) -> Work:
    """Losses to choose by, of the settings ``losses``, for which so many ``layers`` are run on each token."""
    tokens = settings["samples"] * tokens_per_document(settings, text) * layers / shape.layers
    return Work(shape, settings["precision"], gpu, tokens)


@functools.cache
def layers_of_choice(kind: str, ns: tuple[int, ...], n_layers: int) -> int:
    """Layers that run on each token for the losses of a ``kind``, when each of ``ns`` layers are to go.

    Of a greedy step that leaves m - 1 of m layers: the trunk runs m - 2 of them, and a branch, of each but
    the first and the last one, all that follow.
    """
    if kind == "greedy_losses":
        steps = min(max(ns, default=0), n_layers - 2)
        return sum((m - 2) * (m + 1) // 2 for m in range(n_layers, n_layers - steps, -1))
    cuts = single_layers(n_layers) if kind == "layer_losses" else blocks_of(ns, n_layers)
    return trie(cuts, n_layers).layers


def continuing(shape: Shape, settings: Mapping[str, Any], documents: int, gpu: GpuSpec | None) -> Work:
    """What the uncut model writes of a text of its own, an entry of ``texts``, in so many ``documents``."""
    tokens = documents * (settings["prompt_tokens"] + DECODE_COST * settings["new_tokens"])
    return Work(shape, settings["precision"], gpu, tokens)


def healing(shape: Shape, demand: Demand, gpu: GpuSpec | None) -> Work:
    """Healing with a model of ``shape`` in memory, by what the method demands."""
    return Work(shape, demand.precision, gpu, demand.tokens, demand.flops_per_param, demand.memory_mb)


def evaluation(shape: Shape, suite: Mapping[str, Any], tokens: SuiteTokens, gpu: GpuSpec | None) -> Work:
    """One model by one suite, an entry of ``suites``."""
    return Work(shape, computed(suite)["precision"], gpu, tokens.total)


def pruned_evaluation(
    shape: Shape, suite: Mapping[str, Any], tokens: SuiteTokens, gpu: GpuSpec | None, cuts: Iterable[LayerSet]
) -> Work:
    """All un-healed ``cuts`` of a model in one job, the full model among them.

    What is scored runs once through the layers that cuts have in common from the first on, what is generated
    through each cut.
    """
    layers, cuts = shape.layers, list(cuts)
    kept = sum(layers - cut.n for cut in cuts)
    run = tokens.scored * _layers_run(tuple(cuts), layers) + tokens.generated * kept
    work = evaluation(shape, suite, tokens, gpu)
    return replace(_streamed(work, computed(suite), states=len(cuts)), tokens=run / layers)


def healed_evaluation(
    shape: Shape, suite: Mapping[str, Any], tokens: SuiteTokens, gpu: GpuSpec | None, cuts: Iterable[LayerSet]
) -> Work:
    """Healed ``cuts`` of a model, one after another, in one job that has loaded the full model; where that is
    streamed, the cut."""
    kept = [shape.layers - cut.n for cut in cuts]
    if computed(suite).get("stream"):
        shape = replace(shape, layers=max(kept, default=shape.layers))
    work = evaluation(shape, suite, tokens, gpu)
    return replace(work, tokens=tokens.total * sum(kept) / shape.layers)


@functools.cache
def _layers_run(cuts: tuple[LayerSet, ...], n_layers: int) -> int:
    """Layers that run for all ``cuts`` together. Those that are not selected yet count as different blocks
    in the middle, which share the layers before them with the full model."""
    selected = [cut for cut in cuts if not isinstance(cut, PendingBlock)]
    after = sum(math.ceil((n_layers - cut.n) / 2) for cut in cuts if isinstance(cut, PendingBlock))
    return trie(selected, n_layers).layers + after


def speed(shape: Shape, settings: Mapping[str, Any], gpu: GpuSpec | None, n_cuts: int) -> Work:
    """``n_cuts`` cuts that generate ``repeats`` times each and once more, by the settings ``speed``.

    A GPU reads all weights for each new token, which takes about as long as computing 50.
    """
    tokens = settings["batch"] * (settings["prompt"] + 50 * settings["new"])
    return Work(shape, settings["precision"], gpu, n_cuts * (1 + settings["repeats"]) * tokens)


def merging(shape: Shape) -> Work:
    """An adapter into the weights of a cut, as they are stored; on the CPU."""
    return Work(shape, "bf16", None, 0)


def dequantising(shape: Shape, dtype: str) -> Work:
    """A GGUF file into weights of ``dtype``; on the CPU."""
    return Work(shape, dtype, None, 0)


def _streamed(work: Work, settings: Mapping[str, Any], states: int = 1) -> Work:
    """The work if the ``settings`` of its stage say that the model is streamed. So many hidden ``states`` of
    every token wait between two layers, unless they are spilled."""
    if not settings.get("stream"):
        return work
    bytes_ = BYTES.get(work.precision, 2)
    offload_mb = 0 if settings["spill"] else states * work.tokens * work.shape.width * bytes_ / 1e6
    return replace(work, streamed=True, offload_mb=offload_mb)


def cut_bytes(shape: Shape, cut: LayerSet, bytes_per_param: int, is_resharded: bool) -> float:
    """Bytes that the checkpoint of a cut adds to the disk: shards in which nothing changes are links.

    The layers after the cut are written and, unless each has a shard of its own, what may share one with
    them.

    Args:
        shape: of the uncut model.
        cut: the layers removed, at least one.
        bytes_per_param: of the files.
        is_resharded: whether each layer has a shard of its own.
    """
    layers_after = max(0, shape.layers - cut.n - cut.first)
    after = bytes_per_param * shape.layer_params * layers_after / shape.layers
    if is_resharded:
        return after
    all_left = bytes_per_param * shape.without(cut.n).params
    return min(after + bytes_per_param * shape.embedding_params + SHARD, all_left)
