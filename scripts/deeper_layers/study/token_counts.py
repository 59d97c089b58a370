"""How many tokens a stage reads, estimated from the settings of the stage and of its text."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.local_source import MODEL
from ..evaluation.inputs import ROW_TOKENS, SHARE
from .task_files import own_task

# Tokens of a document, about: C4 has 365 million of 156 billion (Dodge et al., arXiv 2104.08758); of an
# invented world, as measured.
DOCUMENT_TOKENS = {"allenai/c4": 500, "generate": 40}
DECODE_COST = 3  # of a generated token, in units of one that is read, in batches as they are usual


def document_tokens(text: Mapping[str, Any]) -> float:
    """Tokens of a document of a text (an entry of ``texts``); infinite if that is not known."""
    if text["source"] == MODEL:
        return float(text["prompt_tokens"] + text["new_tokens"])
    return DOCUMENT_TOKENS.get(text["source"], math.inf)


def tokens_per_document(settings: Mapping[str, Any], text: Mapping[str, Any]) -> float:
    """Of each document of a text, the tokens that a stage reads, whose settings have a ``length``."""
    length: int = settings["length"]
    return min(length, document_tokens(text))


@dataclass(frozen=True)
class TaskSize:
    """What a task of lm-eval makes a model read and write.

    Attributes:
        questions: their number in the whole test set.
        inputs: sequences of the model for each question (choices of one token share one).
        tokens: of a question with its answer, and of an example before it, about.
        generated: tokens of an answer that is generated, about.
        shots: examples that lm-eval shows by itself.
        parts: sub-tasks, to each of which a limit applies.
        answer: of ``tokens`` those of an answer to choose.
        same_examples: whether all questions of a part follow the same ones (lm-eval's sampler first_n); else
            each has some of its own.
    """

    questions: int
    inputs: int
    tokens: int
    generated: int = 0
    shots: int = 0
    parts: int = 1
    answer: int = 1
    same_examples: bool = False


TASKS = {
    "mmlu": TaskSize(14_042, 1, 110, parts=57, same_examples=True),
    "boolq": TaskSize(3_270, 1, 160),
    "hellaswag": TaskSize(10_042, 4, 110, answer=30),
    "gsm8k": TaskSize(1_319, 1, 160, generated=256, shots=5),
}
OTHER_TASK = TaskSize(10_000, 1, 500)


@dataclass(frozen=True)
class SuiteTokens:
    """Tokens of a suite for one model: those of sequences that are scored, and those of generation, in which
    a generated token counts ``DECODE_COST`` times."""

    scored: float
    generated: float = 0

    @property
    def total(self) -> float:
        return self.scored + self.generated


def task_size(suite: Mapping[str, Any], task: str) -> TaskSize | None:
    """Of a task of lm-eval or of the suite's own folder; None if nothing is known of it."""
    if suite.get("include") and (own := own_task(Path(os.path.expanduser(suite["include"])), task)):
        return TaskSize(**own)
    return TASKS.get(task)


def guessed(suite: Mapping[str, Any]) -> list[str]:
    """Its tasks of whose size nothing is known."""
    tasks = [] if suite.get("text") else suite.get("tasks", [])
    return [task for task in tasks if task_size(suite, task) is None]


def suite_tokens(suite: Mapping[str, Any], text: Mapping[str, Any] | None) -> SuiteTokens:
    """Tokens that a suite reads for one model.

    Args:
        suite: an entry of ``suites``.
        text: the entry of ``texts`` that the loss is measured on or that the tasks ask about; None for
            lm-eval's own tasks.
    """
    if "loss" in suite and text:
        return SuiteTokens(suite["loss"]["sequences"] * tokens_per_document(suite["loss"], text))
    if "perplexity" in suite and text:
        section = suite["perplexity"]
        each = document_tokens(text)
        each = each if math.isfinite(each) else DOCUMENT_TOKENS["allenai/c4"]
        tokens = (section["documents"] or text[section["split"]]) * each
        return SuiteTokens(tokens * section["window"] / (section["stride"] or section["window"]))
    scored = generated = 0.0
    for name in suite["tasks"]:
        # Questions about a generated text have four short choices.
        task = TaskSize(text["questions"], 4, 40) if text else task_size(suite, name) or OTHER_TASK
        questions = min(task.questions, (suite.get("limit") or math.inf) * task.parts)
        shots = task.shots if suite.get("shots") is None else suite["shots"]
        if task.generated:
            read = questions * task.inputs * task.tokens * (1 + shots)
            generated += read + DECODE_COST * questions * task.generated
        else:
            scored += _scored(task, questions, shots)
    return SuiteTokens(scored, generated)


def _scored(task: TaskSize, questions: float, shots: int) -> float:
    """Tokens run to score so many ``questions``, after so many examples each: what inputs share stands once
    in a row (``evaluation.rows``). For models whose inputs can share rows, which most can."""
    examples = shots * task.tokens
    length = examples + task.tokens
    by_answer = SHARE * (length - task.answer) >= length
    # Of a question, without the examples.
    own = task.tokens + (task.inputs - 1) * (task.answer if by_answer else task.tokens)
    if not (task.same_examples and SHARE * examples >= length):
        return questions * (own + examples * (1 if by_answer else task.inputs))
    in_a_row = max(1, (max(ROW_TOKENS, 2 * length) - examples) // own)
    rows = task.parts * math.ceil(questions / task.parts / in_a_row)
    return rows * examples + questions * own
