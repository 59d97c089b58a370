"""What a job needs of a machine, estimated from the config.json of its model: for schedulers and for the
plan of a study (``plan``), not for results.

Estimates err on the large side. A job that was stopped all the same is tried again with more (``attempt``),
and goes on where it was. No torch: Snakemake asks while it builds its graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..pruning.layer_set import LayerSet
from .study import LLAMA_2_7B, Study

BYTES = {"fp32": 4, "bf16": 2}  # of a weight
NF4 = 0.52  # of a weight in 4 bits, with its scales, which are in 8 bits themselves
DAY = 24 * 60  # minutes: partitions often allow no more, and a job that reaches it goes on with the next
CPU_FLOPS = 25e9  # of a thread in fp32, measured: 28 of the default study's model, 52 and 70 of wider ones
UTILISATION = 0.2  # of a card's peak that these jobs reach, with padding, small batches and 4 bits
BATCH_MB = 6000  # for a batch of an evaluation, which shrinks to what is free


@dataclass(frozen=True)
class Card:
    """A GPU: its memory in MB, and its peak of operations a second in bf16, without sparsity."""

    memory_mb: int
    peak: float


CARDS = {  # from the makers' data sheets; resources/config.schema.yaml lists the names too
    "l4": Card(24_000, 121e12),
    "rtx-4090": Card(24_000, 165e12),
    "rtx-a6000": Card(48_000, 155e12),
    "l40s": Card(48_000, 362e12),
    "a100-40gb": Card(40_000, 312e12),
    "a100-80gb": Card(80_000, 312e12),
    "h100-80gb": Card(80_000, 989e12),
    "h200": Card(141_000, 989e12),
}


@dataclass(frozen=True)
class Size:
    """The shape of a model: ``layers``, each with ``attention`` weights and ``experts`` feed-forward networks
    (one, if it has no experts) of ``matrices`` matrices ``width`` x ``ffn``, of which a token runs through
    ``active``; an embedding of the ``vocabulary``, and a head, which may be ``tied`` to it."""

    layers: int
    width: int
    ffn: int
    attention: float
    matrices: int
    experts: int
    active: int
    vocabulary: int
    tied: bool

    @property
    def inside(self) -> float:
        """Weights of all layers."""
        return self.layers * (self.attention + self.experts * self.matrices * self.width * self.ffn)

    @property
    def outside(self) -> float:
        """Weights of embedding and head."""
        return self.width * self.vocabulary * (1 if self.tied else 2)

    @property
    def weights(self) -> float:
        return self.inside + self.outside

    @property
    def used(self) -> float:
        """Weights that one token is multiplied with."""
        layer = self.attention + self.active * self.matrices * self.width * self.ffn
        return self.layers * layer + self.width * self.vocabulary

    def without(self, n: int) -> Size:
        """The same with ``n`` layers fewer."""
        return replace(self, layers=self.layers - n)

    def stored(self, precision: str) -> list[tuple[float, float]]:
        """(weights, bytes of each): in NF4 embedding, head and fused experts stay in 16 bits."""
        if precision != "nf4":
            return [(self.weights, BYTES[precision])]
        in_four_bits = self.inside if self.experts == 1 else self.layers * self.attention
        return [(in_four_bits, NF4), (self.weights - in_four_bits, 2)]

    def lora(self, rank: int) -> float:
        """Weights of an adapter on the feed-forward layers."""
        return self.layers * self.experts * self.matrices * rank * (self.width + self.ffn)

    def row(self, length: int) -> float:
        """Bytes for one row of ``length`` tokens in training, with gradient checkpointing: the inputs of all
        layers and the head's logits with their gradient, and what one layer keeps for its own (34 bytes for
        each feature of a token: Korthikanti et al., arXiv 2205.05198)."""
        return length * (2 * self.layers * self.width + 34 * self.width + 10 * self.vocabulary)


@dataclass(frozen=True)
class Work:
    """``passes`` floating-point operations for each of ``tokens`` tokens and each weight that it meets in a
    model of ``size``, in ``precision``; on ``gpus`` cards (0 or 1) of the kind ``card``, with ``batch_mb`` of
    memory beside the weights. A ``streamed`` model has only two layers and the embeddings in memory, and
    ``waiting_mb`` of hidden states in the host's."""

    size: Size
    precision: str
    gpus: int
    tokens: float
    passes: float
    card: Card
    batch_mb: float = BATCH_MB
    streamed: bool = False
    waiting_mb: float = 0

    @property
    def held(self) -> Size:
        """What is in memory at a time."""
        return replace(self.size, layers=2) if self.streamed else self.size

    @property
    def weights_mb(self) -> float:
        return sum(weights * bytes_ for weights, bytes_ in self.held.stored(self.precision)) / 1e6

    @property
    def threads(self) -> int:
        """Beside a GPU, some serve the data. On a CPU a small model is fastest with one thread; above, one
        for each 50 million weights, at most 16."""
        return 8 if self.gpus else max(1, min(16, int(self.size.weights / 50e6)))

    @property
    def seconds(self) -> float:
        """Of computing, from start to end of the tokens."""
        speed = UTILISATION * self.card.peak if self.gpus else CPU_FLOPS * self.threads
        return self.passes * self.size.used * self.tokens / speed

    def gpu_mem_mb(self, attempt: int = 1) -> int:
        """The weights, a tenth more, and the batch. 0 without a GPU."""
        return self.gpus * math.ceil((1.1 * self.weights_mb + self.batch_mb) * _more(attempt))

    def mem_mb(self, attempt: int = 1) -> int:
        """On a CPU twice the weights and 4 GB; beside a GPU, through which the weights only pass, 8 GB and
        half a byte for each weight."""
        need = 8000 + 0.5 * self.held.weights / 1e6 if self.gpus else 4000 + 2 * self.weights_mb
        return math.ceil((need + self.waiting_mb) * _more(attempt))

    def runtime(self, attempt: int = 1) -> int:
        """Minutes that a job asks for: the double in the second attempt, and so on; at most a day."""
        return min(DAY, math.ceil(self.minutes * attempt))

    @property
    def minutes(self) -> float:
        """From start to end, on the safe side: 15 to start, and twice the time of computing."""
        return 15 + 2 * self.seconds / 60


def _more(attempt: int) -> float:
    """Memory grows by half with each attempt, up to the fourth: those after it are for want of time."""
    return 1 + 0.5 * (min(attempt, 4) - 1)


def distances(study: Study, model: str) -> Work:
    settings = study.config["distances"]
    work = _work(study, model, settings["precision"], settings["samples"] * _document(study, settings))
    return _streamed(work, settings)


def healing(study: Study, model: str, recipe: str, n: int = 0) -> Work:
    """Of a model without ``n`` layers: forward, backward to the activations, and the forward once more where
    memory is short. Padded rows are counted as twice a document: they are as long as the longest beside them.
    """
    settings = study.recipe(recipe, model)
    length = settings["length"]
    row = length if settings["packing"] else min(length, 2 * _document(study, settings))
    tokens = settings["steps"] * settings["batch"] * row
    work = _work(study, model, settings["precision"], tokens, n, passes=6)
    # Beside the row: 16 bytes for a weight of the adapter (itself, gradient, two moments), 2 GB for CUDA.
    trained = 16 * work.size.lora(settings["rank"])
    return replace(work, batch_mb=2000 + (trained + work.size.row(length)) / 1e6)


def healing_days(study: Study) -> int:
    """Of the study's longest healing, of which a job does one at most and the next attempt goes on."""
    works = [healing(study, model, recipe) for model in study.models for recipe in study.recipes]
    return math.ceil(max((work.minutes for work in works), default=0) / DAY)


def evaluation(study: Study, model: str, suite: str, n: int = 0) -> Work:
    """Of a model without ``n`` layers."""
    return _work(study, model, _precision(study, suite), sum(_reading(study, suite)), n)


def family(study: Study, model: str, suite: str) -> Work:
    """All un-healed cuts of a model in one job. What is scored runs through the layers before a cut once for
    all of them, what is generated through each cut."""
    work = evaluation(study, model, suite)
    n_layers, blocks = work.size.layers, study.blocks(study.expected(model))
    branches = sum(n_layers - 1 - block.last for block in blocks if block.n)
    kept = sum(n_layers - block.n for block in blocks)
    scored, generated = _reading(study, suite)
    tokens = (scored * (n_layers + branches) + generated * kept) / n_layers
    work = _streamed(work, study.config["suites"][suite].get("loss", {}), states=len(blocks))
    return replace(work, tokens=tokens)


def speed(study: Study, model: str) -> Work:
    """Every cut generates ``repeats`` times and once more. A card reads all weights for each new token, which
    takes about as long as computing 50."""
    settings = study.config["speed"]
    tokens = settings["batch"] * (settings["prompt"] + 50 * settings["new"])
    runs = len(study.blocks(study.expected(model))) * (1 + settings["repeats"])
    return _work(study, model, settings["precision"], runs * tokens)


def merging(study: Study, model: str, block: str) -> Work:
    """On the CPU, the weights as they are stored."""
    return replace(_work(study, model, "bf16", 0, LayerSet.parse(block).n), gpus=0)


def pretraining(study: Study, model: str) -> Work:
    """Forward and backward, on the CPU."""
    settings = study.pretraining(model)
    tokens = settings["steps"] * settings["batch"] * settings["length"]
    return replace(_work(study, model, "fp32", tokens, passes=6), gpus=0)


def _work(study: Study, model: str, precision: str, tokens: float, n: int = 0, passes: float = 2) -> Work:
    card = CARDS[study.config["card"]]
    return Work(size(study, model).without(n), precision, study.gpus(model), tokens, passes, card)


def _streamed(work: Work, settings: Mapping, states: int = 1) -> Work:
    """The work if its ``settings`` say that the model is streamed. So many ``states`` of every token wait
    between two layers, unless they are spilled."""
    if not settings.get("stream"):
        return work
    bytes_ = BYTES.get(work.precision, 2)
    waiting = 0 if settings["spill"] else states * work.tokens * work.size.width * bytes_ / 1e6
    return replace(work, streamed=True, waiting_mb=waiting)


# Texts

# Tokens of a document, about: C4 has 365 million of 156 billion (Dodge et al., arXiv 2104.08758); of an
# invented world, as measured.
DOCUMENTS = {"allenai/c4": 500, "generate": 40}


def document(study: Study, text: str) -> float:
    """About how many tokens a document of a text has; infinite if that is not known."""
    return DOCUMENTS.get(study.config["texts"][text]["source"], math.inf)


def _document(study: Study, settings: Mapping) -> float:
    return min(settings["length"], document(study, settings["text"]))


@dataclass(frozen=True)
class Task:
    """A task of lm-eval: its ``questions`` in ``parts`` sub-tasks, inputs of the model for each (choices of
    one token share one), about the ``tokens`` of a question or an example and of a ``written`` answer, and
    the ``shots`` that lm-eval shows by itself."""

    questions: int
    inputs: int
    tokens: int
    written: int = 0
    shots: int = 0
    parts: int = 1


TASKS = {
    "mmlu": Task(14_042, 1, 110, parts=57),
    "boolq": Task(3_270, 1, 160),
    "hellaswag": Task(10_042, 4, 110),
    "gsm8k": Task(1_319, 1, 160, written=256, shots=5),
}
UNKNOWN = Task(10_000, 1, 500)
WRITING = 3  # times what it costs to read a token, in batches as they are usual


def _precision(study: Study, suite: str) -> str:
    settings = study.config["suites"][suite]
    return settings.get("loss", settings)["precision"]


def _reading(study: Study, suite: str) -> tuple[float, float]:
    """Tokens of a suite for one model: those of texts that are scored, and those of generation, in which a
    written token counts as ``WRITING``."""
    settings = study.config["suites"][suite]
    if "loss" in settings:
        return settings["loss"]["sequences"] * _document(study, settings["loss"]), 0
    scored = generated = 0.0
    for name in settings["tasks"]:
        task = TASKS.get(name, UNKNOWN)
        if settings.get("text"):  # four short choices
            task = Task(study.config["texts"][settings["text"]]["questions"], 4, 40)
        questions = min(task.questions, (settings.get("limit") or math.inf) * task.parts)
        shots = task.shots if settings.get("shots") is None else settings["shots"]
        read = questions * task.inputs * task.tokens * (1 + shots)
        if task.written:
            generated += read + WRITING * questions * task.written
        else:
            scored += read
    return scored, generated


# Models

UNGATED = {  # feed-forward networks of two matrices, not three
    *("arcee", "apertus", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj"),
    *("mpt", "nemotron", "opt", "phi", "starcoder2"),
}
TIED = {"bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt"}


def size(study: Study, model: str) -> Size:
    """Of a model's config.json, or of the configuration of its training."""
    if study.source(model)["kind"] != "pretrain":
        return measure(study.model_config(model) or LLAMA_2_7B)
    shape = study.pretraining(model)
    names = {"hidden_size": "width", "intermediate_size": "ffn", "num_hidden_layers": "layers"}
    return measure({name: shape[key] for name, key in names.items()})


def measure(config: Mapping) -> Size:
    """The size that a config.json describes; biases, norms and anything unusual are left out."""
    kind = config.get("model_type")
    tied = config.get("tie_word_embeddings")
    config = config.get("text_config", config)

    def get(*names: str, default: float) -> float:
        return next((config[name] for name in names if config.get(name)), default)

    width = get("hidden_size", "n_embd", "d_model", default=0)
    heads = get("num_attention_heads", "n_head", "n_heads", default=1)
    grouped = get("num_key_value_heads", default=heads)
    ffn = get("intermediate_size", "n_inner", "ffn_dim", default=4 * width)
    experts = get("num_local_experts", "num_experts", "n_routed_experts", default=0)
    return Size(
        layers=get("num_hidden_layers", "n_layer", "n_layers", "num_layers", default=0),
        width=width,
        # First-generation Qwen states twice the width of what it has.
        ffn=get("moe_intermediate_size", default=ffn) if experts else ffn / 2 if kind == "qwen" else ffn,
        attention=2 * width * (heads + grouped) * get("head_dim", default=width / heads),
        matrices=2 if kind in UNGATED else 3,
        experts=experts or 1,
        active=get("num_experts_per_tok", "experts_per_token", default=1) if experts else 1,
        vocabulary=get("vocab_size", default=0),
        tied=kind in TIED if tied is None else tied,
    )


def cut_size(study: Study, model: str, block: LayerSet) -> float:
    """Bytes that a cut checkpoint adds to the disk: shards in which nothing changes are links. Written are
    the layers behind the block and, unless each has a shard of its own, what may share one with them."""
    whole, bytes_of = size(study, model), weight_bytes(study, model)
    behind = bytes_of * whole.inside * (whole.layers - 1 - block.last) / whole.layers
    if study.config["models"][model]["reshard"]:
        return behind
    return min(behind + bytes_of * whole.outside + SHARD, bytes_of * whole.without(block.n).weights)


SHARD = 10e9  # bytes, at most usual


def weight_bytes(study: Study, model: str) -> int:
    """Bytes of a weight on the disk."""
    if study.source(model)["kind"] == "pretrain":
        return 4
    config = study.model_config(model) or {}
    return 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
