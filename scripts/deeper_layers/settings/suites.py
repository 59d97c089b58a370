"""Suites: what models are measured by, tasks of lm-eval, or the loss or the perplexity of held-out text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .base import Settings, check_words, section, setting
from .precision import Streamed, batch, precision
from .texts import SPLITS, TextUse


@dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings):
    """A suite of lm-eval's tasks."""

    WHAT = "tasks"

    tasks: Sequence[str] = setting(str, (), "Tasks of lm-eval: names of tasks, groups or tags.")
    include: Sequence[str] = setting(str, (), "Folder with task definitions of your own.")
    shots: int | None = setting(
        int, None, "Examples before each question. Default is that of the task.", least=0
    )
    order: int | None = setting(
        int, None, "Seed that shuffles the examples. Default is the order of the task.", least=0
    )
    limit: int | None = setting(int, None, "Only so many questions of each task. Default is all.", least=1)
    metric: str | None = setting(
        str,
        None,
        "The metric that stands for a task, in its name, such as acc_norm; the others stay beside it. "
        "Default is the first that it has of acc, exact_match and acc_norm.",
        determines=False,
    )
    bos: str | None = setting(
        str,
        None,
        "Whether a sequence begins with the token for that. Default is what the tokenizer does.",
        choices=("always", "never"),
    )
    chat: bool = setting(
        bool,
        False,
        "Ask as in a conversation, by the chat template of the tokenizer; examples are earlier turns.",
    )
    system: str | None = setting(str, None, "What the system says at the beginning; default is nothing.")
    generation: str | None = setting(
        str,
        None,
        "How answers are written, in place of what the tasks say, in lm-eval's words, as in "
        "max_gen_toks=2048,temperature=0.6,do_sample=true.",
    )
    think_end: str | None = setting(
        str,
        None,
        "The text that ends a model's thinking, as </think>. The answer is what follows its last one.",
    )
    batch: int | None = batch()
    precision: str = precision()

    def check(self) -> None:
        check_words(f"{self.WHAT}.tasks", self.tasks)
        for name, value in generation_settings(self.generation, self.WHAT).items():
            if name not in GENERATION:
                near = difflib.get_close_matches(name, GENERATION, 1) or GENERATION
                raise UserError(f"{self.WHAT}: generation: {name} is not known; write {' or '.join(near)}")
            if name in LENGTHS and not (value.isdecimal() and int(value)):
                raise UserError(f"{self.WHAT}: generation: {name} is {value}, it must be a number of tokens")


# What of lm-eval's settings for generation may be given in a suite.
LENGTHS = ("max_gen_toks", "max_new_tokens")
GENERATION = (
    *LENGTHS,
    *("do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p", "num_beams"),
    *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "until"),
)


def generation_settings(text: str | None, where: str = "tasks") -> dict[str, str]:
    """{name: value} of settings for generation as NAME=VALUE,... Raises UserError for what is not that."""
    parts = text.split(",") if text else []
    if wrong := [part for part in parts if part.count("=") != 1 or not all(part.split("="))]:
        raise UserError(
            f"{where}: generation: {wrong[0]!r} is not NAME=VALUE; write them as in "
            "max_gen_toks=512,temperature=0"
        )
    return {name.strip(): value.strip() for name, value in (part.split("=") for part in parts)}


@dataclass(frozen=True, kw_only=True)
class LossSettings(Streamed):
    """The loss on the first ``sequences`` documents of a text, cut to ``length`` tokens."""

    WHAT = "loss"

    sequences: int = setting(int, 60_000, "Documents, from the first. The paper takes 60000.", least=2)
    length: int = setting(int, 2048, "Tokens that a document is cut to.", least=2)
    batch: int | None = batch()


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings(Streamed):
    """The perplexity of ``documents`` put end to end, in windows."""

    WHAT = "perplexity"

    documents: int | None = setting(int, None, "Documents, from the first. Default is all.", least=1)
    window: int = setting(int, 2048, "Tokens that the model sees at once.", least=2)
    stride: int | None = setting(
        int, None, "Tokens from one window to the next. Default is the window: none is seen twice.", least=1
    )
    batch: int | None = batch()

    def check(self) -> None:
        super().check()
        if self.stride and self.stride > self.window:
            raise UserError(
                f"{self.WHAT}: stride {self.stride} leaves out tokens between windows of {self.window}; "
                f"write at most {self.window}"
            )


@dataclass(frozen=True, kw_only=True)
class ValidationText(TextUse):
    """The text whose loss is measured."""

    split: str = setting(str, "validation", "Split of the text.", choices=SPLITS)


@dataclass(frozen=True, kw_only=True)
class Loss(LossSettings, ValidationText):
    """The section ``loss`` of a suite."""


@dataclass(frozen=True, kw_only=True)
class Perplexity(PerplexitySettings, ValidationText):
    """The section ``perplexity`` of a suite."""


@dataclass(frozen=True, kw_only=True)
class Suite(TaskSettings):
    """A suite of the configuration."""

    WHAT = "suites"

    # One folder, where the program takes several.
    include: str | None = setting(  # type: ignore[assignment]
        str, None, "Folder with task definitions of your own."
    )
    text: str | None = setting(str, None, "The generated text whose tasks these are; not along with include.")
    loss: dict | None = section(Loss, "Loss of held-out tokens, in nats and divided by ln V.")

    perplexity: dict | None = section(Perplexity, "Perplexity of a text whose documents are put end to end.")

    def check(self) -> None:
        if [bool(self.tasks), self.loss is not None, self.perplexity is not None].count(True) != 1:
            raise UserError("suites: give either tasks or loss or perplexity")
        super().check()
        for name in ("metric", "bos", "chat", "system", "generation", "think_end"):
            if getattr(self, name) and not self.tasks:
                raise UserError(f"suites: {name} is that of tasks, and this suite has none; leave it out")
        if self.tasks and self.text and self.include:
            raise UserError(
                f"suites: text takes the tasks of the generated text {self.text}, include those of a folder; "
                "give one"
            )


HELD_OUT = {"loss": Loss, "perplexity": Perplexity}  # sections of suites that read held-out text


def held_out(suite: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Which section of a suite of the configuration reads held-out text, and its settings; None for tasks."""
    return next(((kind, suite[kind]) for kind in HELD_OUT if suite.get(kind) is not None), None)


def computed(suite: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a suite that say how it is computed: of that section, or its own."""
    reader = held_out(suite)
    return reader[1] if reader else suite
