"""The jobs of a study, by the names of its rules: what each computes and writes, and whether it is done."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..checkpoints.hub_cache import cached_file
from ..healing.methods import rule_name
from ..pruning.layer_set import LayerSet
from ..pruning.selection import PendingBlock
from ..pruning.strategy import SECTIONS
from ..settings.suites import held_out
from ..settings.texts import SPLITS
from . import figures
from .chunks import chunks
from .estimates import Work
from .evidence import kind_of, measured
from .study import Study
from .task_files import fetches
from .token_counts import document_tokens
from .workload import Workloads

# Seconds of a job before it computes: imports, the GPU, and the model from a disk of 1 GB per second; on the
# CPU, as measured; of a job without a model, all of it.
START, START_ON_CPU, LIGHT = 60, 10, 5
TEXT_BYTES, WORLD_BYTES = 2200, 200  # of a document, about: of C4, of the invented world


@dataclass(frozen=True)
class Job:
    """A job of a rule.

    Attributes:
        stage: the name of the rule.
        model: the model it is for; None for all.
        output: its file, or one of them.
        work: what it computes with a model, if it does.
        disk: bytes that it writes to the study's folder.
        cache: bytes that it writes to the Hugging Face cache.
        pace: seconds that jobs like it have taken, for each second that was foreseen.
    """

    stage: str
    model: str | None
    output: str
    work: Work | None = None
    disk: float = 0
    cache: float = 0
    pace: float = 1

    @cached_property
    def done(self) -> bool:
        """Whether its output is there already."""
        return Path(self.output).is_file()

    @property
    def seconds(self) -> float:
        if self.work is None:
            return LIGHT
        start = START if self.on_gpu else START_ON_CPU
        return self.pace * (start + self.work.load_seconds + self.work.seconds)

    @property
    def on_gpu(self) -> bool:
        return self.work is not None and self.work.gpus > 0


class Context:
    """A ``study``, and what several stages ask of it. ``cpu_flops`` of a thread, if they were measured.

    Attributes:
        workloads: the work of its jobs.
        choices: of each model, what its blocks.csv will hold.
        texts: of each model, (text, split) of all that is read of its tokens.
    """

    def __init__(self, study: Study, cpu_flops: float | None = None):
        self.study, self.paths, self.workloads = study, study.paths, Workloads(study)
        self.cpu_flops = cpu_flops
        self.choices = {model: study.expected(model) for model in study.models}
        self.texts = {model: self._texts(model) for model in study.models}

    def job(
        self, stage: str, model: str | None, output: str, work: Work | None = None, **sizes: float
    ) -> Job:
        if work and self.cpu_flops:
            work = replace(work, cpu_flops=self.cpu_flops)
        return Job(stage, model, output, work, **sizes)

    def _texts(self, model: str) -> set[tuple[str, str]]:
        """(text, split) of all that is read of a model's tokens."""
        study = self.study
        readers = [found[1] for suite in study.suites if (found := held_out(study.suite(suite)))]
        readers += [measured(study.config, name) for name in study.evidence]
        readers += [
            study.recipe(recipe, model)
            for recipe in study.recipes
            if study.reads_text(recipe) and study.healed(recipe, model, self.choices[model])
        ]
        read = {(reader["text"], reader["split"]) for reader in readers}
        prompts = {text: study.config["texts"][text]["prompts"] for text in study.continued_texts}
        return read | {(prompts[text], split) for text, split in read if text in prompts}

    def healed(self) -> Iterator[tuple[str, str, LayerSet]]:
        """(model, recipe, block) of everything that is healed."""
        for model in self.study.models:
            for recipe in self.study.recipes:
                for block in self.study.healed(recipe, model, self.choices[model]):
                    yield model, recipe, block

    def weight_bytes(self, model: str) -> float:
        return self.workloads.bytes_per_param(model) * self.workloads.shape(model).params


# Texts and base models


def world(context: Context) -> Iterator[Job]:
    study = context.study
    texts = {text for read in context.texts.values() for text, _ in read}
    texts |= {study.model(model).pretraining["text"] for model in study.models_from("pretrain")}
    texts |= {study.config["suites"][suite].get("text") for suite in study.suites}
    for text in sorted(texts & set(study.generated_texts)):
        documents = sum(study.config["texts"][text][split] for split in SPLITS)
        yield context.job("world", None, context.paths.text(text, "train"), disk=WORLD_BYTES * documents)


def sample(context: Context) -> Iterator[Job]:
    sampled = set(context.study.sampled_texts)
    for text, split in sorted(set().union(*context.texts.values())):
        if text in sampled:
            disk = TEXT_BYTES * context.study.config["texts"][text][split]
            yield context.job("sample", None, context.paths.text(text, split), disk=disk)


def pretrain(context: Context) -> Iterator[Job]:
    for model in context.study.models_from("pretrain"):
        work, disk = context.workloads.pretraining(model), context.weight_bytes(model)
        output = context.paths.pretrained("model.safetensors", model)
        yield context.job("pretrain", model, output, work, disk=disk)


def download(context: Context) -> Iterator[Job]:
    for model in context.study.models_from("hub"):
        missing = max(0, context.weight_bytes(model) - _cached_bytes(context.study, model))
        yield context.job("download", model, context.paths.download(model), cache=missing)


def fetch_tasks(context: Context) -> Iterator[Job]:
    for suite in context.study.suites:
        if fetches(context.study.suite(suite)):
            yield context.job("fetch_tasks", None, context.paths.task_data(suite))


def adopt(context: Context) -> Iterator[Job]:
    for model in context.study.models:
        if model in context.study.native_models:
            is_copied = context.study.config["models"][model]["reshard"]
            disk = context.weight_bytes(model) if is_copied else 0
            yield context.job("adopt", model, context.paths.full(model), disk=disk)


def convert_qwen(context: Context) -> Iterator[Job]:
    for model in context.study.models_to_convert("qwen"):
        disk = context.weight_bytes(model)
        yield context.job("convert_qwen", model, context.paths.full(model), disk=disk)


def convert_gguf(context: Context) -> Iterator[Job]:
    for model in context.study.models_from("gguf"):
        disk = context.weight_bytes(model)
        yield context.job("convert_gguf", model, context.paths.full(model), disk=disk)


# A model before it is cut


def tokenise(context: Context) -> Iterator[Job]:
    for model in context.study.models:
        for text, split in sorted(context.texts[model]):
            if text in context.study.continued_texts:
                continue
            settings = context.study.config["texts"][text]
            tokens = min(document_tokens(settings), TEXT_BYTES) * settings[split]
            output = context.paths.tokens(text, split, model)
            yield context.job("tokenise", model, output, disk=4 * tokens)


def continue_text(context: Context) -> Iterator[Job]:
    for model in context.study.models:
        for text, split in sorted(context.texts[model]):
            if text in context.study.continued_texts:
                work = context.workloads.continuing(model, text, split)
                yield context.job("continue_text", model, context.paths.tokens(text, split, model), work)


def evidence(context: Context) -> Iterator[Job]:
    for model in context.study.models:
        for name in context.study.evidence:
            kind, output = kind_of(name), context.paths.evidence(name, model)
            if SECTIONS[kind] == "losses":
                yield context.job("losses", model, output, context.workloads.losses(model, name))
            elif kind == "iterative_influence":
                yield context.job(kind, model, output, context.workloads.iterative(model, name))
            else:
                yield context.job(kind, model, output, context.workloads.distances(model, name))


def blocks(context: Context) -> Iterator[Job]:
    for model in context.study.models:
        yield context.job("blocks", model, context.paths.blocks(model))


# Its cuts


def evaluate_pruned(context: Context) -> Iterator[Job]:
    for model in context.study.models:
        for suite in context.study.suites:
            work = context.workloads.pruned_evaluation(model, suite)
            yield context.job("evaluate_pruned", model, context.paths.pruned_index(suite, model), work)


def measure_speed(context: Context) -> Iterator[Job]:
    for model in context.study.models if context.study.config["study"]["speed"] else []:
        output = context.paths.speed(model)
        yield context.job("measure_speed", model, output, context.workloads.speed(model))


def verify_cuts(context: Context) -> Iterator[Job]:
    for model in dict.fromkeys(model for model, _, _ in context.healed()):
        yield context.job("verify_cuts", model, context.paths.verified(model))


def cut(context: Context) -> Iterator[Job]:
    for model, block in dict.fromkeys((model, block) for model, _, block in context.healed()):
        if block.n:
            output = context.paths.checkpoint(_name(block), model)
            yield context.job("cut", model, output, disk=context.workloads.cut_bytes(model, block))


def heal(context: Context) -> Iterator[Job]:
    for model, recipe, block in context.healed():
        work = context.workloads.healing(model, recipe, block)
        disk = context.workloads.healing_demand(model, recipe, block).artifact_bytes
        output = context.paths.healed("heal.json", recipe, _name(block), model)
        stage = rule_name(context.study.method_name(recipe))
        yield context.job(stage, model, output, work, disk=disk)


def evaluate_healed(context: Context) -> Iterator[Job]:
    study = context.study
    for model, recipe in itertools.product(study.models, study.recipes):
        for chunk in chunks(study, recipe, model, context.choices[model]):
            for suite in study.suites:
                work = context.workloads.healed_evaluation(model, recipe, suite, chunk)
                output = context.paths.healed_index(suite, chunk, recipe, model)
                yield context.job("evaluate_healed", model, output, work)


# Results


def report(context: Context) -> Iterator[Job]:
    """Table, summary, page and figures."""
    study, paths = context.study, context.paths
    yield context.job("study", None, paths.study())
    yield context.job("table", None, paths.table())
    yield context.job("summary", None, paths.summary())
    yield context.job("explore", None, paths.explore())
    for stage, names in (
        ("figure_distances", figures.of_distances(study)),
        ("figure_speed", figures.of_speed(study)),
        ("figure_model", figures.of_model(study)),
    ):
        for model in study.models:
            for name in names:
                yield context.job(stage, None, paths.figure("svg", name, model))
    for name in figures.of_study(study):
        yield context.job("figure_study", None, paths.study_figure("svg", name))


def _cached_bytes(study: Study, model: str) -> int:
    """Bytes of a hub model's weights in the cache."""
    source = study.model(model)
    config = cached_file(source.id, source.revision, "config.json")
    return sum(path.stat().st_size for path in config.parent.glob("*.safetensors")) if config else 0


def _name(block: LayerSet) -> str:
    return "?" if isinstance(block, PendingBlock) else str(block)


STAGES = (  # in the order in which they run
    world,
    sample,
    pretrain,
    download,
    fetch_tasks,
    adopt,
    convert_qwen,
    convert_gguf,
    tokenise,
    continue_text,
    evidence,
    blocks,
    evaluate_pruned,
    measure_speed,
    verify_cuts,
    cut,
    heal,
    evaluate_healed,
    report,
)


def jobs(study: Study, cpu_flops: float | None = None) -> list[Job]:
    """Every job of a study, stage after stage. Blocks that are not chosen yet count at most, as if no two
    were the same. ``cpu_flops``: floating-point operations a second of a thread here, if measured."""
    context = Context(study, cpu_flops)
    return [job for stage in STAGES for job in stage(context)]


def announcement(study: Study, counted: Collection[str], plan_command: str) -> str:
    """What to say of jobs that Snakemake cannot count yet, given the rules of those that it does."""
    if "blocks" not in counted:
        return ""
    at_most = f", in all at most {len(jobs(study)) + 1} jobs" if "all" in counted else ""
    return (
        f"More follow once the blocks are chosen: cutting, healing and evaluation{at_most} "
        f"(`{plan_command}` says what they cost)."
    )
