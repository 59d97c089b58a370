"""The plan of a study as a page."""

from __future__ import annotations

from collections.abc import Mapping

from ..evaluation.inputs import ROW_TOKENS
from ..reporting.text import markdown_table, si
from .estimates import CPU_FLOPS
from .gpu_specs import GPUS
from .jobs import LIGHT, START, START_ON_CPU
from .plan import Cost, Memory, Plan
from .token_counts import OTHER_TASK


def markdown(plan: Plan) -> str:
    """The page, in Markdown that is read in a terminal too. GPUs are left out where none is used."""
    on_gpu = any(cost.gpu_hours for cost in plan.stages.values())
    costs = plan.models | {"all, with texts and figures": plan.total}
    parts = [
        [_assumptions(plan, on_gpu)],
        *_unseen(plan),
        *_guessed(plan),
        [f"**Warning**: {warning}." for warning in plan.warnings],
        _costs("model", costs, on_gpu),
        _costs("stage", plan.stages, on_gpu),
        *_memory(plan),
        *_disks(plan),
    ]
    lines = [_total(plan, on_gpu)]
    for part in parts:
        lines += ["", *part]
    return "\n".join(lines) + "\n"


def _total(plan: Plan, on_gpu: bool) -> str:
    total = plan.total
    gpu_hours = f"{_hours(total.gpu_hours)} hours of one {plan.card}, " if on_gpu else ""
    cpu_hours = f"{_hours(total.cpu_hours)} {'' if on_gpu else 'hours '}of CPU"
    return (
        f"{total.jobs:,} jobs, {total.done:,} of them done; still to do: {gpu_hours}{cpu_hours}, "
        f"up to {_bytes(total.bytes)} of disk."
    )


def _assumptions(plan: Plan, on_gpu: bool) -> str:
    measured = "as measured here in products of fp32" if plan.cpu_flops else "taken for fp32"
    speed = f"at up to {(plan.cpu_flops or CPU_FLOPS) / 1e9:.0f} G a second of a CPU thread ({measured})"
    if on_gpu:
        card = GPUS[plan.card]
        scoring, training = (f"{100 * card.reached(is_on):.0f} %" for is_on in (False, True))
        peak = f"{card.peak_flops / 1e12:.0f} TFLOPS (bf16)"
        speed = f"at {scoring} of the peak of {peak}, {training} in training"
    return (
        "Estimated from each model's config.json: 2 operations for each weight and token, 6 in healing, "
        f"{speed}, {START if on_gpu else START_ON_CPU} s for a job to start and {LIGHT} s for one without a "
        f"model, one job at a time. What prompts that are scored have in common counts once in a row of "
        f"{ROW_TOKENS:,} tokens. {_pace(plan)}Blocks that are not chosen yet count as different ones in the "
        "middle, so jobs and disk are upper bounds. Real hours may well be half or double."
    )


def _pace(plan: Plan) -> str:
    """Of finished jobs, if there are any."""
    if not plan.timed:
        return ""
    jobs = "the finished job" if plan.timed == 1 else f"the {plan.timed:,} finished jobs"
    return f"Where {jobs} of the same kind took more or less, so do those to come. "


def _unseen(plan: Plan) -> list[list[str]]:
    """A line, if the shape of a model is not known."""
    line = (
        f"Taken for a Llama-2-7B, because no config.json is in the cache: {', '.join(plan.unseen)} (`hf "
        "download ID config.json --revision REVISION`)."
    )
    return [[line]] if plan.unseen else []


def _guessed(plan: Plan) -> list[list[str]]:
    """A line, if the size of a task is not known."""
    line = (
        f"Taken for {OTHER_TASK.questions:,} questions of {OTHER_TASK.tokens} tokens, because nothing is "
        f"known of their size: {', '.join(plan.guessed)}."
    )
    return [[line]] if plan.guessed else []


def _costs(label: str, costs: Mapping[str, Cost], on_gpu: bool) -> list[str]:
    """A table of costs; what is still to do of tokens, disk and hours, those of a GPU if there are any."""
    heads = [label, "jobs", "done", "tokens", "disk", *(["GPU hours"] if on_gpu else []), "CPU hours"]
    rows = [
        [name, f"{cost.jobs:,}", f"{cost.done:,}", si(cost.tokens, fixed=False), _bytes(cost.bytes)]
        + ([_hours(cost.gpu_hours)] if on_gpu else [])
        + [_hours(cost.cpu_hours)]
        for name, cost in costs.items()
    ]
    return markdown_table(heads, rows)


def _memory(plan: Plan) -> list[list[str]]:
    """A line and a table, if there is anything on a GPU."""
    if not plan.memory:
        return []
    heads = ["model", "stage", "precision", "weights x bytes", "weights", "needed", "fits"]
    memory = GPUS[plan.card].memory_mb / 1e3
    return [
        [f"Memory of the card, {plan.card} with {memory:.0f} GB, in GB:"],
        markdown_table(heads, [_memory_row(m) for m in plan.memory]),
    ]


def _memory_row(memory: Memory) -> list[str]:
    return [
        memory.model,
        memory.stage,
        memory.precision,
        " + ".join(f"{params / 1e9:.2f} G x {bytes_}" for params, bytes_ in memory.arithmetic),
        f"{memory.weights:.1f}",
        f"1.1 x {memory.weights:.1f} + {memory.batch:.1f} = {memory.needed:.1f}",
        "yes" if memory.fits else "no",
    ]


def _disks(plan: Plan) -> list[list[str]]:
    if not plan.disks:
        return []
    rows = [[folders, _bytes(needed), _bytes(free)] for folders, needed, free in plan.disks]
    return [["Disk:"], markdown_table(["folder", "still needed, at most", "free"], rows)]


def _bytes(number: float) -> str:
    return si(number, "B", fixed=False)


def _hours(hours: float) -> str:
    if hours >= 10 or hours == 0:
        return f"{hours:,.0f}"
    return f"{hours:.1f}" if hours >= 0.1 else f"{hours:.1g}"
