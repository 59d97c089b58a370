"""The settings of every program: type, default, meaning and bounds, in one place.

The programs make their options from these classes, and ``Study`` constructs the same ones while Snakemake
reads the configuration, so that what a program would refuse is refused before anything runs. No torch.
resources/config.schema.yaml repeats defaults and bounds for its readers; a test compares them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Self

from .errors import UserError

PRECISIONS = ("fp32", "bf16", "nf4")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
LARGEST = 2**31 - 1  # of whole numbers: what seeds and counts of the libraries hold


def setting(kind: type, default: Any, meaning: str, determines: bool = True, **bounds: Any) -> Any:
    """A field of a class of settings.

    Args:
        kind: int, float, str or bool.
        default: A tuple makes it several values, None an optional one.
        meaning: What it is.
        determines: Whether results follow from it. What does not only says how they are computed, and changes
            at most the rounding of their last digits: a change of it reruns nothing.
        bounds: ``least``, ``most`` (inclusive), ``above``, ``below`` (exclusive), ``choices``; ``key`` False
            for what is no key of the configuration.
    """
    return field(
        default=default, metadata={"kind": kind, "help": meaning, "determines": determines, **bounds}
    )


@dataclass(frozen=True)
class Settings:
    """Settings that were checked one by one; subclasses check in ``check`` how they go together. ``WHAT`` is
    what messages begin with. Raises UserError for values that cannot be."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if "kind" in one.metadata and (fault := _fault(one, value)):
                raise UserError(f"{self.WHAT}: {one.name} is {value}, it must be {fault}")
        self.check()

    WHAT = "settings"

    def check(self) -> None:
        """Raise a UserError if the settings do not go together."""

    @classmethod
    def tuning(cls) -> list[str]:
        """Names of the settings that determine no result."""
        return [one.name for one in fields(cls) if not one.metadata.get("determines", True)]

    def determining(self) -> dict[str, Any]:
        """The settings that determine results, by name."""
        return {name: value for name, value in asdict(self).items() if name not in self.tuning()}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping that may hold other keys too; what it lacks has its default."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})


def _fault(one: Field, value: Any) -> str | None:
    """What a value must be, if it is not that."""
    bounds, kind = one.metadata, one.metadata["kind"]
    if isinstance(one.default, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return "several values"
        return next((fault for item in value if (fault := _one_fault(kind, bounds, item))), None)
    if value is None and one.default is None:
        return None
    return _one_fault(kind, bounds, value)


def _one_fault(kind: type, bounds: Mapping, value: Any) -> str | None:
    accepted = {float: (int, float), int: int, str: str, bool: bool}[kind]
    if not isinstance(value, accepted) or (kind in (int, float) and isinstance(value, bool)):
        return {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}[kind]
    if "choices" in bounds and value not in bounds["choices"]:
        return f"one of {', '.join(bounds['choices'])}"
    if kind in (str, bool):
        return None
    if kind is float and not math.isfinite(value):
        return "finite"
    if "least" in bounds and value < bounds["least"]:
        return f"at least {bounds['least']}"
    if "above" in bounds and value <= bounds["above"]:
        return f"above {bounds['above']}"
    if "most" in bounds and value > bounds["most"]:
        return f"at most {bounds['most']}"
    if "below" in bounds and value >= bounds["below"]:
        return f"below {bounds['below']}"
    return f"at most {LARGEST}" if kind is int and value > LARGEST else None


@dataclass(frozen=True)
class Pretraining(Settings):
    """Shape of the base model and its training: ``steps`` batches of ``batch`` rows of ``length`` tokens."""

    layers: int = setting(int, 12, "decoder layers", least=2)
    width: int = setting(int, 128, "size of the residual stream", least=8)
    heads: int = setting(int, 4, "attention heads", least=1)
    ffn: int = setting(int, 256, "inner size of the MLP", least=8)
    steps: int = setting(int, 350, "training steps", least=1)
    batch: int = setting(int, 16, "rows a step", least=1)
    length: int = setting(int, 128, "tokens a row", least=2)
    seed: int = setting(int, 0, "of weights and document order", least=0)

    WHAT = "pretrain"

    def check(self) -> None:
        if self.width % (2 * self.heads):  # rotary embeddings turn pairs
            raise UserError(
                f"pretrain: width is {self.width}, it must be an even multiple of the {self.heads} heads, "
                f"such as {2 * self.heads * max(1, round(self.width / (2 * self.heads)))}"
            )


@dataclass(frozen=True)
class WorldSettings(Settings):
    """The invented world: its people, its documents of each split, the questions of each task."""

    seed: int = setting(int, 0, "another seed is another world", least=0)
    people: int = setting(int, 80, "people in the world", least=10, most=19_200)
    train: int = setting(int, 20_000, "documents to train and heal on", least=1)
    calibration: int = setting(int, 500, "documents to measure distances on", least=1)
    validation: int = setting(int, 1000, "held-out documents to measure the loss on", least=1)
    questions: int = setting(int, 200, "questions of each task, at most", least=1)

    WHAT = "world"


@dataclass(frozen=True)
class Streamed(Settings):
    """A model that may be read one layer at a time."""

    precision: str = setting(str, "bf16", "of the model", choices=PRECISIONS)
    stream: bool = setting(
        bool, False, "read one layer at a time: for models beyond memory", determines=False
    )
    spill: str | None = setting(
        str, None, "with --stream: folder for hidden states; none: in memory", determines=False
    )

    def check(self) -> None:
        if self.stream and self.precision == "nf4":
            raise UserError(
                f"{self.WHAT}: stream reads weights as they are, so precision cannot be nf4; write bf16 or "
                "fp32"
            )


@dataclass(frozen=True)
class DistanceSettings(Streamed):
    """The angular distances: ``samples`` documents cut to ``length`` tokens."""

    samples: int = setting(int, 10_000, "how many documents, from the first", least=2)
    length: int = setting(int, 2048, "cut documents to this many tokens", least=2)
    batch_tokens: int = setting(int, 16_384, "tokens of a batch, padding counted", determines=False, least=1)

    WHAT = "distances"


@dataclass(frozen=True)
class Healing(Settings):
    """What determines a healed adapter, with the paper's settings (appendix A.1) as defaults.

    ``alpha`` None is alpha = rank; ``batch`` is in rows of at most ``length`` tokens.
    """

    rank: int = setting(int, 64, "LoRA rank", least=1)
    alpha: float | None = setting(float, None, "LoRA alpha; none: the rank", above=0)
    dropout: float = setting(float, 0.05, "LoRA dropout", least=0, below=1)
    targets: Sequence[str] = setting(str, ("auto",), "linear layers to adapt; auto: the FFN")
    learning_rate: float = setting(float, 3e-4, "peak learning rate", above=0)
    schedule: str = setting(str, "cosine", "learning rate after the warm-up", choices=SCHEDULES)
    warmup: int = setting(int, 100, "steps of linear warm-up", least=0)
    steps: int = setting(int, 5000, "optimiser steps", least=1)
    batch: int = setting(int, 16, "rows of a step", least=1)
    length: int = setting(int, 2048, "tokens of a row", least=2)
    packing: bool = setting(bool, False, "several documents a row, that do not see each other")
    precision: str = setting(str, "nf4", "of the frozen weights", choices=PRECISIONS)
    weight_decay: float = setting(float, 0.0, "weight decay of AdamW", least=0)
    clip: float = setting(float, 1.0, "largest norm of the gradient", above=0)
    seed: int = setting(int, 0, "seed of adapter, order and dropout", least=0)
    micro_batch: int | None = setting(
        int,
        None,
        "rows at once, halved when memory runs out; none: the batch",
        determines=False,
        least=1,
    )
    checkpointing: str = setting(
        str,
        "auto",
        "gradient checkpointing; auto: when not even one row fits without",
        determines=False,
        key=False,
        choices=("auto", "on", "off"),
    )
    save_every: float = setting(
        float, 600, "seconds between checkpoints to resume from", determines=False, key=False, least=0
    )

    WHAT = "healing"

    def check(self) -> None:
        check_micro_batch(self.micro_batch, self.batch)
        if self.warmup >= self.steps:
            raise UserError(f"healing: warmup is {self.warmup} of {self.steps} steps, it must be fewer")
        if not self.targets:
            raise UserError("healing: targets is empty; name linear layers, or write auto")


def check_micro_batch(micro_batch: int | None, batch: int) -> None:
    """Raise a UserError if a step of ``batch`` rows cannot be made of ``micro_batch`` rows at a time."""
    if micro_batch is not None and (micro_batch < 1 or batch % micro_batch):
        raise UserError(f"healing: micro_batch {micro_batch} does not divide batch {batch}")


@dataclass(frozen=True)
class TaskSettings(Settings):
    """A suite of lm-eval's tasks. ``batch`` None is auto."""

    tasks: Sequence[str] = setting(str, (), "names of tasks, groups or tags")
    include: Sequence[str] = setting(str, (), "folders with tasks of our own")
    shots: int | None = setting(int, None, "examples before each question; none: as the task says", least=0)
    limit: int | None = setting(int, None, "the first documents of each task; none: all", least=1)
    order: int | None = setting(int, None, "seed that shuffles the examples; none: the task's order", least=0)
    precision: str = setting(str, "bf16", "of the model", choices=PRECISIONS)
    batch: int | None = setting(
        int, None, "sequences of a batch; auto: as many as fit", determines=False, least=1
    )

    WHAT = "tasks"


@dataclass(frozen=True)
class LossSettings(Streamed):
    """The loss on the first ``sequences`` documents of a text, cut to ``length`` tokens."""

    sequences: int = setting(int, 60_000, "how many documents, from the first", least=2)
    length: int = setting(int, 2048, "cut documents to this many tokens", least=2)
    batch: int | None = setting(
        int, None, "sequences of a batch; auto: as many as fit", determines=False, least=1
    )

    WHAT = "loss"


@dataclass(frozen=True)
class SpeedSettings(Settings):
    """How memory and speed are measured."""

    batch: int = setting(int, 1, "sequences generated at once", least=1)
    prompt: int = setting(int, 512, "tokens of a prompt", least=1)
    new: int = setting(int, 64, "tokens generated after it", least=2)
    repeats: int = setting(int, 5, "timed runs of each cut", least=1)
    precision: str = setting(str, "bf16", "of the model", choices=PRECISIONS)

    WHAT = "speed"
