"""What a job needs of a machine, estimated from the size of its model: for schedulers, not for results.

Estimates err on the large side. A job that was stopped all the same is tried again with more (``attempt``),
and goes on where it was. No torch: Snakemake asks while it builds its graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .study import Study

BYTES = {"fp32": 4, "bf16": 2, "nf4": 0.6}  # of a weight; nf4 with its scales and the unquantised embeddings
GPU_FLOPS = 60e12  # of an A100 with these jobs: a fifth of its peak in bf16
CPU_FLOPS = 5e9  # of a core
DAY = 24 * 60  # minutes: partitions often allow no more, and a job that reaches it goes on with the next
UNSEEN, LAYERS = 7e9, 32  # parameters and layers of a hub model whose config.json is not here yet
WIDTH = ("hidden_size", "n_embd", "d_model")  # names of the width in a config.json
QUESTIONS, QUESTION = 10_000, 500  # of a task of lm-eval, and tokens of one with its examples


@dataclass(frozen=True)
class Work:
    """``passes`` floating-point operations for each of ``tokens`` tokens and each of ``parameters`` weights,
    the weights in ``precision``, on ``gpus`` cards (0 or 1). A streamed model has only the share ``held`` of
    its weights in memory, and ``waiting_mb`` of hidden states."""

    parameters: float
    precision: str
    gpus: int
    tokens: float
    passes: float
    held: float = 1.0
    waiting_mb: float = 0.0

    @property
    def weights_mb(self) -> float:
        return self.held * self.parameters * BYTES[self.precision] / 1e6

    @property
    def threads(self) -> int:
        """Beside a GPU, some serve the data. On a CPU a small model is fastest with one thread; above, one
        for each 50 million weights, at most 16."""
        return 8 if self.gpus else max(1, min(16, int(self.parameters / 50e6)))

    def gpu_mem_mb(self, attempt: int = 1) -> int:
        """The weights, a tenth more, and 6 GB for a batch, which shrinks to what is free. 0 without a GPU."""
        return self.gpus * math.ceil((1.1 * self.weights_mb + 6000) * _more(attempt))

    def mem_mb(self, attempt: int = 1) -> int:
        """On a CPU twice the weights and 4 GB; beside a GPU, through which the weights only pass, 8 GB and
        half a byte for each weight."""
        if self.gpus:
            need = 8000 + 0.5 * self.held * self.parameters / 1e6
        else:
            need = 4000 + 2 * self.weights_mb
        return math.ceil((need + self.waiting_mb) * _more(attempt))

    def runtime(self, attempt: int = 1) -> int:
        """Minutes: 15 to start, and twice the operations over the speed; the double in the second attempt,
        and so on; at most a day."""
        speed = GPU_FLOPS if self.gpus else CPU_FLOPS * self.threads
        need = 15 + 2 * self.passes * self.parameters * self.tokens / speed / 60
        return min(DAY, math.ceil(need * attempt))


def _more(attempt: int) -> float:
    """Memory grows by half with each attempt."""
    return 1 + 0.5 * (attempt - 1)


def distances(study: Study, model: str) -> Work:
    settings = study.config["distances"]
    work = _work(study, model, settings["precision"], settings["samples"] * settings["length"], passes=2)
    return _streamed(work, study, model, settings)


def healing(study: Study, model: str, recipe: str) -> Work:
    """Forward, backward to the activations, and the forward once more where memory is short."""
    settings = study.recipe(recipe, model)
    tokens = settings["steps"] * settings["batch"] * settings["length"]
    return _work(study, model, settings["precision"], tokens, passes=6)


def family(study: Study, model: str, suite: str) -> Work:
    """All un-healed cuts of a model in one job, as if they shared no layer."""
    cuts = len(study.remove(model)) or (study.n_layers(model) or LAYERS) - 1
    work = evaluation(study, model, suite, blocks=1 + cuts * len(study.strategies))
    return _streamed(work, study, model, study.config["suites"][suite].get("loss", {}))


def evaluation(study: Study, model: str, suite: str, blocks: int = 1) -> Work:
    """Of ``blocks`` models in one job. A loss has its tokens; of tasks it is not known how many they have."""
    settings = study.config["suites"][suite]
    if "loss" in settings:
        settings = settings["loss"]
        tokens = settings["sequences"] * settings["length"]
    else:
        tokens = len(settings["tasks"]) * (settings.get("limit") or QUESTIONS) * QUESTION
    return _work(study, model, settings["precision"], blocks * tokens, passes=2)


def pretraining(study: Study, model: str) -> Work:
    """Forward and backward, on the CPU."""
    settings = study.pretraining(model)
    tokens = settings["steps"] * settings["batch"] * settings["length"]
    return Work(parameters(study, model), "fp32", 0, tokens, passes=6)


def _work(study: Study, model: str, precision: str, tokens: float, passes: float) -> Work:
    return Work(parameters(study, model), precision, study.gpus(model), tokens, passes)


def _streamed(work: Work, study: Study, model: str, settings: Mapping) -> Work:
    """The work if its ``settings`` say that the model is streamed: two layers and the embeddings are in
    memory, and the hidden states of all tokens, unless they are spilled."""
    config = _config(study, model)
    if not settings.get("stream") or config is None:
        return work
    text = config.get("text_config", config)
    width = next((text[name] for name in WIDTH if text.get(name)), 0)
    waiting = 0 if settings["spill"] else work.tokens * width * BYTES[work.precision] / 1e6
    return replace(work, held=count({**text, "num_hidden_layers": 2}) / count(text), waiting_mb=waiting)


def parameters(study: Study, model: str) -> float:
    """About how many weights a model has, from its config.json or the configuration of its training."""
    config = _config(study, model)
    return UNSEEN if config is None else count(config)


def _config(study: Study, model: str) -> Mapping | None:
    """The model's config.json, or the like of it for a model that is to be trained; None if not known yet."""
    if study.source(model)["kind"] == "pretrain":
        shape = study.pretraining(model)
        names = {"hidden_size": "width", "intermediate_size": "ffn", "num_hidden_layers": "layers"}
        return {name: shape[key] for name, key in names.items()}
    return study.model_config(model)


def count(config: Mapping) -> float:
    """About how many weights a config.json describes: attention with its grouped heads, three matrices in
    each feed-forward layer and expert, embeddings."""
    config = config.get("text_config", config)

    def get(*names: str, default: float) -> float:
        return next((config[name] for name in names if config.get(name)), default)

    width = get(*WIDTH, default=0)
    layers = get("num_hidden_layers", "n_layer", "n_layers", "num_layers", default=0)
    heads = get("num_attention_heads", "n_head", "n_heads", default=1)
    grouped = get("num_key_value_heads", default=heads)
    attention = 2 * width * (heads + grouped) * get("head_dim", default=width / heads)
    experts = get("num_local_experts", "num_experts", "n_routed_experts", default=0)
    ffn = get("intermediate_size", "n_inner", "ffn_dim", default=4 * width)
    if experts:
        ffn = experts * get("moe_intermediate_size", default=ffn)
    embeddings = width * get("vocab_size", default=0) * (1 if config.get("tie_word_embeddings") else 2)
    return layers * (attention + 3 * width * ffn) + embeddings
