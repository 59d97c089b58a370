"""The work of a study's jobs: finds the values of a job (shape, settings, GPU) for ``estimates``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..checkpoints.shape import Shape, bytes_per_param
from ..healing.method import Demand
from ..healing.methods import healing_method
from ..pruning.layer_set import FULL, LayerSet
from ..settings.suites import computed
from . import estimates
from .chunks import blocks_of
from .estimates import DAY, Work
from .evidence import kind_of, measured, step
from .gpu_specs import GPUS, GpuSpec
from .sources import LLAMA_2_7B
from .study import Study
from .token_counts import SuiteTokens, document_tokens, suite_tokens


class Workloads:
    """The work of each stage of a ``study``; the arguments are named as the wildcards of the stage's rule."""

    def __init__(self, study: Study):
        self.study = study

    # Models

    def shape(self, model: str) -> Shape:
        """Of the model's config.json, or of the settings of its training. A hub model whose config.json is
        not in the cache yet is taken for a Llama-2-7B."""
        if self.study.model(model).kind != "pretrain":
            return Shape.from_config(self.study.model(model).config or LLAMA_2_7B)
        settings = self.study.model(model).pretraining
        keys = {"hidden_size": "width", "intermediate_size": "ffn", "num_hidden_layers": "layers"}
        return Shape.from_config({name: settings[key] for name, key in keys.items()})

    def bytes_per_param(self, model: str) -> int:
        """Of the model's files."""
        source = self.study.model(model)
        if source.kind == "pretrain" or source.kind == "gguf" and source.settings["dtype"] == "fp32":
            return 4
        return bytes_per_param(self.study.model(model).config or {})

    def gpu(self, model: str) -> GpuSpec | None:
        """What the model's jobs run on; None for the CPU."""
        return GPUS[self.study.config["card"]] if self.study.model(model).settings["gpus"] else None

    # Stages

    def pretraining(self, model: str) -> Work:
        return estimates.pretraining(self.shape(model), self.study.model(model).pretraining)

    def dequantising(self, model: str) -> Work:
        return estimates.dequantising(self.shape(model), self.study.model(model).settings["dtype"])

    def distances(self, model: str, evidence: str = "distances") -> Work:
        settings = measured(self.study.config, evidence)
        return estimates.distances(self.shape(model), settings, self._text(settings), self.gpu(model))

    def iterative(self, model: str, evidence: str) -> Work:
        """A pass for each step; of that the layers that are gone by then are counted too."""
        once, asked = replace(self.distances(model, evidence), streamed=False), self.study.removals(model)
        most = max(asked or [0]) if asked is not None else self.shape(model).layers - 1
        return replace(once, tokens=once.tokens * math.ceil(most / step(evidence)))

    def losses(self, model: str, evidence: str) -> Work:
        settings, shape = measured(self.study.config, evidence), self.shape(model)
        asked = self.study.removals(model)
        ns = range(1, shape.layers) if asked is None else [n for n in asked if n < shape.layers]
        layers = estimates.layers_of_choice(kind_of(evidence), tuple(ns), shape.layers)
        return estimates.losses(shape, settings, self._text(settings), self.gpu(model), layers)

    def continuing(self, model: str, text: str, split: str) -> Work:
        settings = self.study.config["texts"][text]
        return estimates.continuing(self.shape(model), settings, settings[split], self.gpu(model))

    def healing(self, model: str, recipe: str, block: LayerSet) -> Work:
        shape, demand = self._healing_shape(model, recipe, block), self.healing_demand(model, recipe, block)
        return estimates.healing(shape, demand, self.gpu(model))

    def healing_demand(self, model: str, recipe: str, block: LayerSet) -> Demand:
        values, shape = self.study.recipe(recipe, model), self._healing_shape(model, recipe, block)
        method = healing_method(values["method"])
        settings = method.SETTINGS.of(method.settings(values))
        return method.demand(settings, shape, document_tokens(self._text(values)))

    def _healing_shape(self, model: str, recipe: str, block: LayerSet) -> Shape:
        """Of the model in memory: the uncut one, where that is read."""
        is_whole = self.study.method(recipe).reads_full(self.study.recipe(recipe, model))
        return self.shape(model).without(0 if is_whole else block.n)

    def healed_evaluation(self, model: str, recipe: str, suite: str, chunk: str) -> Work:
        shape, gpu = self.shape(model), self.gpu(model)
        cuts = blocks_of(chunk, self.study, recipe, model, self.study.expected(model))
        return estimates.healed_evaluation(shape, *self._suite(suite), gpu, cuts)

    def pruned_evaluation(self, model: str, suite: str) -> Work:
        shape, gpu = self.shape(model), self.gpu(model)
        return estimates.pruned_evaluation(shape, *self._suite(suite), gpu, self._cuts(model))

    def speed(self, model: str) -> Work:
        settings, n_cuts = self.study.config["speed"], len(self._cuts(model))
        return estimates.speed(self.shape(model), settings, self.gpu(model), n_cuts)

    def merging(self, model: str, block: LayerSet) -> Work:
        return estimates.merging(self.shape(model).without(block.n))

    def cut_bytes(self, model: str, block: LayerSet) -> float:
        """Of the disk, for the checkpoint of a cut."""
        is_resharded = self.study.config["models"][model]["reshard"]
        return estimates.cut_bytes(self.shape(model), block, self.bytes_per_param(model), is_resharded)

    def healing_days(self) -> int:
        """Of the study's longest healing, of which a job does one at most and the next attempt goes on."""
        models, recipes = self.study.models, self.study.recipes
        minutes = [self.healing(model, recipe, FULL).minutes for model in models for recipe in recipes]
        return math.ceil(max(minutes, default=0) / DAY)

    # Settings

    def _cuts(self, model: str) -> list[LayerSet]:
        return self.study.blocks(self.study.expected(model))

    def _text(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        text: Mapping[str, Any] = self.study.config["texts"][settings["text"]]
        return text

    def _suite(self, name: str) -> tuple[Mapping[str, Any], SuiteTokens]:
        suite = self.study.config["suites"][name]
        settings = computed(suite)
        return suite, suite_tokens(suite, self._text(settings) if settings.get("text") else None)
