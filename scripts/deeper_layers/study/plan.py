"""What a study will cost, before anything runs: jobs, tokens, disk, memory of the card and hours.

The jobs are those of the rules, by the rules' names. All is told from the configuration and each model's
config.json; ``work`` has the arithmetic, by which schedulers are asked too. No torch, no weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.hub_cache import cache_folder, cached_file
from ..pruning.layer_set import LayerSet
from ..reporting.text import markdown_table, si
from . import estimates as work
from .estimates import CARDS, UTILISATION, Work
from .study import SPLITS, Study, Unknown

# Seconds of a job before it computes: imports, the card, and the model from a disk of 1 GB a second; on the
# CPU, as measured; of a job without a model, all of it.
START, START_ON_CPU, LIGHT = 60, 10, 5
STAGES = (  # rules, in the order in which they run
    *("world", "sample", "pretrain", "download", "adopt", "convert_qwen", "tokenise", "distances", "blocks"),
    *("evaluate_pruned", "measure_speed", "cut", "heal", "evaluate_healed", "table", "summary"),
    *("figure_distances", "figure_speed", "figure_model", "figure_study"),
)
TEXT, WORLD = 2200, 200  # bytes of a document, about: of C4, of the invented world


@dataclass(frozen=True)
class Job:
    """A job of the rule ``stage`` for a model (None: for all), ``done`` if its output is there already. It
    writes ``disk`` bytes to the study's folder and ``cache`` bytes to the Hugging Face cache."""

    stage: str
    model: str | None
    done: bool
    work: Work | None = None
    disk: float = 0
    cache: float = 0

    @property
    def seconds(self) -> float:
        if self.work is None:
            return LIGHT
        return (START if self.on_gpu else START_ON_CPU) + self.work.weights_mb / 1e3 + self.work.seconds

    @property
    def on_gpu(self) -> bool:
        return self.work is not None and self.work.gpus > 0


def jobs(study: Study) -> list[Job]:
    """Every job of a study. Blocks that are not chosen yet count at most, as if no two were the same."""
    found = list(_texts(study))
    for model in study.models:
        found += _base(study, model)
        found += _cuts(study, model)
        for rule, names in (
            ("figure_distances", study.distance_figures),
            ("figure_speed", study.speed_figures),
            ("figure_model", study.model_figures),
        ):
            found += [_job(study, rule, None, f"figures/{model}/{name}.svg") for name in names]
    found += [_job(study, "figure_study", None, f"figures/{name}.svg") for name in study.study_figures]
    found.append(_job(study, "table", None, "table.csv"))
    return [*found, _job(study, "summary", None, "summary.md")]


def _job(study: Study, stage: str, model: str | None, output: str, *args, **sizes) -> Job:
    folder = f"{study.out}/{model}" if model else study.out
    return Job(stage, model, Path(f"{folder}/{output}").is_file(), *args, **sizes)


def _readers(study: Study, model: str) -> list[dict]:
    """The settings, with text and split, of all that reads a model's tokens."""
    losses = [study.config["suites"][suite]["loss"] for suite in study.suites if study.is_loss(suite)]
    choices = study.expected(model)
    recipes = [study.recipe(r, model) for r in study.recipes if study.healed(r, model, choices)]
    return recipes + losses + ([study.config["distances"]] if study.distance_files(model) else [])


def _texts(study: Study) -> Iterable[Job]:
    readers = [reader for model in study.models for reader in _readers(study, model)]
    texts = {(reader["text"], reader["split"]) for reader in readers}
    worlds = {text for text, _ in texts}
    worlds |= {study.pretraining(model)["text"] for model in study.models_from("pretrain")}
    worlds |= {study.config["suites"][suite].get("text") for suite in study.suites}
    for text in sorted(worlds & set(study.texts_from(world=True))):
        documents = sum(study.config["texts"][text][split] for split in SPLITS)
        yield _job(study, "world", None, f"texts/{text}/train.jsonl", disk=WORLD * documents)
    for text, split in sorted(texts):
        if text in study.texts_from(world=False):
            documents = study.config["texts"][text][split]
            yield _job(study, "sample", None, f"texts/{text}/{split}.jsonl", disk=TEXT * documents)


def _base(study: Study, model: str) -> Iterable[Job]:
    """What comes before the cuts: the checkpoint, its tokens, the distances and the blocks."""
    source, whole = study.source(model), work.size(study, model)
    weights = work.weight_bytes(study, model) * whole.weights
    full = "checkpoints/full/manifest.json"
    if source["kind"] == "pretrain":
        pretraining = work.pretraining(study, model)
        yield _job(study, "pretrain", model, "pretrained/model.safetensors", pretraining, disk=weights)
    elif source["kind"] == "hub":
        missing = max(0, weights - _cached(source["id"], source["revision"]))
        yield _job(study, "download", model, "download.json", cache=missing)
    if model in study.converted("qwen"):
        yield _job(study, "convert_qwen", model, full, disk=weights)
    else:
        copied = study.config["models"][model]["reshard"]
        yield _job(study, "adopt", model, full, disk=weights if copied else 0)
    for text, split in sorted({(reader["text"], reader["split"]) for reader in _readers(study, model)}):
        documents = study.config["texts"][text][split]
        tokens = min(work.document(study, text), TEXT) * documents
        yield _job(study, "tokenise", model, f"tokens/{text}-{split}.json", disk=4 * tokens)
    if study.distance_files(model):
        yield _job(study, "distances", model, "distances.csv", work.distances(study, model))
    yield _job(study, "blocks", model, "blocks.csv")


def _cached(model_id: str, revision: str | None) -> int:
    """Bytes of a hub model's weights in the cache."""
    config = cached_file(model_id, revision, "config.json")
    return sum(path.stat().st_size for path in config.parent.glob("*.safetensors")) if config else 0


def _cuts(study: Study, model: str) -> Iterable[Job]:
    """Evaluation and speed of the un-healed cuts; cutting, healing and evaluation of the healed ones."""
    choices = study.expected(model)
    for suite in study.suites:
        family = work.family(study, model, suite)
        yield _job(study, "evaluate_pruned", model, f"pruned/{suite}/index.json", family)
    if study.config["study"]["speed"]:
        yield _job(study, "measure_speed", model, "speed.csv", work.speed(study, model))
    healed = {recipe: study.healed(recipe, model, choices) for recipe in study.recipes}
    for block in dict.fromkeys(block for blocks in healed.values() for block in blocks if block.n):
        written = work.cut_size(study, model, block)
        yield _job(study, "cut", model, f"checkpoints/{_name(block)}/manifest.json", disk=written)
    for recipe, blocks in healed.items():
        for block in blocks:
            healing = work.healing(study, model, recipe, block.n)
            adapter = 4 * healing.size.lora(study.recipe(recipe, model)["rank"])
            folder = f"{recipe}/{_name(block)}"
            yield _job(study, "heal", model, f"{folder}/heal.json", healing, disk=adapter)
            for suite in study.suites:
                evaluation = work.evaluation(study, model, suite, block.n)
                yield _job(study, "evaluate_healed", model, f"{folder}/{suite}.json", evaluation)


def _name(block: LayerSet) -> str:
    return "?" if isinstance(block, Unknown) else str(block)


@dataclass(frozen=True)
class Cost:
    """Of some jobs, those that are ``done`` among them: tokens, bytes and hours of what is still to do."""

    jobs: int
    done: int
    tokens: float
    bytes: float
    gpu_hours: float
    cpu_hours: float

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Cost:
        todo = [job for job in jobs if not job.done]
        return cls(
            jobs=len(jobs),
            done=len(jobs) - len(todo),
            tokens=sum(job.work.tokens for job in todo if job.work),
            bytes=sum(job.disk + job.cache for job in todo),
            gpu_hours=sum(job.seconds for job in todo if job.on_gpu) / 3600,
            cpu_hours=sum(job.seconds for job in todo if not job.on_gpu) / 3600,
        )


@dataclass(frozen=True)
class Memory:
    """The largest GPU job of a ``stage`` of a model: GB of the weights, stored as ``arithmetic`` says, of a
    batch, and of all with a tenth of the weights more; whether the card has them."""

    model: str
    stage: str
    precision: str
    arithmetic: str
    weights: float
    batch: float
    needed: float
    fits: bool

    @classmethod
    def of(cls, job: Job) -> Memory:
        stored = job.work.held.stored(job.work.precision)
        return cls(
            job.model,
            job.stage,
            job.work.precision,
            " + ".join(f"{weights / 1e9:.2f} G x {size}" for weights, size in stored),
            job.work.weights_mb / 1e3,
            job.work.batch_mb / 1e3,
            job.work.gpu_mem_mb() / 1e3,
            job.work.gpu_mem_mb() <= job.work.card.memory_mb,
        )


@dataclass(frozen=True)
class Plan:
    """What a study costs: by model, by stage and in total; memory of the card; disks as (folders, bytes
    needed, bytes free); models whose config.json is not at hand; and what does not suffice."""

    card: str
    models: dict[str, Cost]
    stages: dict[str, Cost]
    total: Cost
    memory: list[Memory]
    disks: list[tuple[str, float, int]]
    unseen: list[str]
    warnings: list[str]


def plan(study: Study) -> Plan:
    """The plan of a study, for one card of the kind that its configuration names."""
    found = jobs(study)
    stages = [stage for stage in STAGES if any(job.stage == stage for job in found)]
    memory = [
        Memory.of(max(group, key=lambda job: job.work.gpu_mem_mb()))
        for model in study.models
        for stage in stages
        if (group := [job for job in found if job.on_gpu and (job.model, job.stage) == (model, stage)])
    ]
    disks = _disks(study, found)
    return Plan(
        study.config["card"],
        {model: Cost.of([job for job in found if job.model == model]) for model in study.models},
        {stage: Cost.of([job for job in found if job.stage == stage]) for stage in stages},
        Cost.of(found),
        memory,
        disks,
        [study.source(model)["id"] for model in study.unseen],
        [*_too_large(study, memory), *_too_full(disks)],
    )


def _disks(study: Study, found: Sequence[Job]) -> list[tuple[str, float, int]]:
    """Of each file system: which of our folders are on it, the bytes that these still need, and its room."""
    todo = [job for job in found if not job.done]
    needs = {Path(study.out): sum(job.disk for job in todo), cache_folder(): sum(job.cache for job in todo)}
    disks: dict[int, list] = {}
    for folder, needed in needs.items():
        there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
        disk = disks.setdefault(there.stat().st_dev, [[], 0, shutil.disk_usage(there).free])
        disk[0] += [str(folder)] if needed else []
        disk[1] += needed
    return [(" and ".join(folders), needed, free) for folders, needed, free in disks.values() if folders]


def _too_large(study: Study, memory: Sequence[Memory]) -> Iterable[str]:
    card = study.config["card"]
    for m in memory:
        if not m.fits:
            advice = "a card with more memory" if m.precision == "nf4" else "precision nf4, or a larger card"
            yield (
                f"{m.model}, {m.stage} in {m.precision}: {m.needed:.0f} GB do not fit the "
                f"{CARDS[card].memory_mb / 1e3:.0f} GB of {card}; take {advice}"
            )


def _too_full(disks: Sequence[tuple[str, float, int]]) -> Iterable[str]:
    for folders, needed, free in disks:
        if needed > free:
            yield (
                f"{folders}: up to {_bytes(needed)} are needed and {_bytes(free)} are free; shorten "
                "study.remove, or set outdir (results) or HF_HOME (models) to a larger disk"
            )


def markdown(plan: Plan) -> str:
    """The plan as a page."""
    card, total = CARDS[plan.card], plan.total
    on_gpu = any(cost.gpu_hours for cost in plan.stages.values())
    hours = f"{_hours(total.gpu_hours)} hours of one {plan.card}, " if on_gpu else ""
    speed = f"at {work.CPU_FLOPS / 1e9:.0f} G a second of a CPU thread"
    if on_gpu:
        speed = f"at {100 * UTILISATION:.0f} % of its peak of {card.peak / 1e12:.0f} TFLOPS (bf16)"
    lines = [
        f"{total.jobs:,} jobs, {total.done:,} of them done; still to do: {hours}{_hours(total.cpu_hours)} "
        f"{'' if on_gpu else 'hours '}of CPU, up to {_bytes(total.bytes)} of disk.",
        "",
        "Estimated from each model's config.json: 2 operations for each weight and token, 6 in healing, "
        f"{speed}, {START if on_gpu else START_ON_CPU} s for a job to start and {LIGHT} s for one without a "
        "model, one job at a time. Blocks that are not chosen yet count as if they shared nothing, so jobs, "
        "hours and disk are upper bounds. Real hours may well be half or double.",
    ]
    if plan.unseen:
        lines += [
            "",
            f"Taken for a Llama-2-7B, because no config.json is in the cache: {', '.join(plan.unseen)} (`hf "
            "download ID config.json --revision REVISION`).",
        ]
    lines += ["", *[f"**Warning**: {warning}." for warning in plan.warnings]]
    lines += ["", *_costs("model", plan.models | {"all, with texts and figures": total}, on_gpu)]
    lines += ["", *_costs("stage", plan.stages, on_gpu)]
    if plan.memory:
        lines += ["", f"Memory of the card, {plan.card} with {card.memory_mb / 1e3:.0f} GB, in GB:", ""]
        rows = [
            [m.model, m.stage, m.precision, m.arithmetic, f"{m.weights:.1f}"]
            + [f"1.1 x {m.weights:.1f} + {m.batch:.1f} = {m.needed:.1f}", "yes" if m.fits else "no"]
            for m in plan.memory
        ]
        lines += markdown_table(
            ["model", "stage", "precision", "weights x bytes", "weights", "needed", "fits"], rows
        )
    if plan.disks:
        lines += ["", "Disk:", ""]
        rows = [[folders, _bytes(needed), _bytes(free)] for folders, needed, free in plan.disks]
        lines += markdown_table(["folder", "still needed, at most", "free"], rows)
    return "\n".join(lines) + "\n"


def _costs(what: str, costs: dict[str, Cost], on_gpu: bool) -> list[str]:
    """A table of costs; what is still to do of tokens, disk and hours, those of a GPU if there are any."""
    titles = [what, "jobs", "done", "tokens", "disk", *(["GPU hours"] if on_gpu else []), "CPU hours"]
    rows = [
        [name, f"{c.jobs:,}", f"{c.done:,}", si(c.tokens, fixed=False), _bytes(c.bytes)]
        + ([_hours(c.gpu_hours)] if on_gpu else [])
        + [_hours(c.cpu_hours)]
        for name, c in costs.items()
    ]
    return markdown_table(titles, rows)


def _bytes(number: float) -> str:
    return si(number, "B", fixed=False)


def _hours(hours: float) -> str:
    if hours >= 10 or hours == 0:
        return f"{hours:,.0f}"
    return f"{hours:.1f}" if hours >= 0.1 else f"{hours:.1g}"
