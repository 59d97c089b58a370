"""An invented world: people with facts, told, asked about and counted with, all by one seed.

The text on which the embedded study trains its model, heals it, and the questions that test it. Every
word and mark stands between spaces, so that a word-level tokenizer needs no rules. No torch.

A document is one of

- a biography: some facts of one person, in any order, each in one of several paraphrases;
- questions with their answers, about the *asked* people only;
- a word problem of 1 to 4 steps with its steps worked.

The test questions are about the *tested* people, whose facts stand in biographies alone: a right answer
is a fact that was read, asked for in a way that was learned from others.
"""

from __future__ import annotations

import glob
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..errors import UserError
from ..resources import resource
from ..runtime.files import atomic_write
from .world_facts import ATTRIBUTES, KNOWLEDGE, YESNO, Attribute

TASKS = resource("tasks")
SPLITS = ("validation", "calibration", "train")  # a split never repeats a document of one before it


THINGS = ["apples", "beads", "books", "coins", "eggs", "keys", "nuts", "pens", "shells", "stamps"]
GAINS = ["finds", "buys"]
LOSSES = ["loses", "sells"]
LARGEST = 10  # no amount in a word problem is larger, or below zero


@dataclass(frozen=True)
class Person:
    """A ``name`` of one word and a value for every attribute."""

    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Problem:
    """A word problem: the ``question`` and the ``answer`` with its steps worked, ended by the ``result``."""

    question: str
    answer: str
    result: int

    def __str__(self) -> str:
        return f"{self.question} {self.answer}"


class World:
    """Everything there is to say about ``people`` people (at least 10), drawn from ``seed``.

    ``tested`` is the share of them about whom no document asks a question. Equal arguments give equal
    worlds, documents and questions, on any machine.
    """

    def __init__(self, seed: int = 0, people: int = 80, tested: float = 0.3):
        if people < 10:
            raise UserError(f"a world of {people} people is too small to test: give it 10 or more")
        self.seed = seed
        rng = self._random("people")
        names = _names(rng, people)
        # Each value is as frequent as any other, so that guessing the commonest one gains nothing.
        columns = {a.name: _balanced(rng, a.values, people) for a in ATTRIBUTES}
        self.people = [
            Person(name, {a: column[i] for a, column in columns.items()}) for i, name in enumerate(names)
        ]
        cut = round(people * tested)
        self.tested, self.asked = self.people[:cut], self.people[cut:]

    def _random(self, purpose: str) -> random.Random:
        """A generator for one purpose, so that more of one thing leaves the others as they are."""
        return random.Random(f"{self.seed} {purpose}")

    # Documents

    def documents(self, **counts: int) -> dict[str, list[str]]:
        """As many documents as asked for of the splits ``train``, ``calibration`` (these break off
        anywhere) and ``validation``, all different. A split's documents depend on its own count and on
        those of the splits before it in SPLITS only."""
        seen: set[str] = set()
        return {split: self._split(split, counts.get(split, 0), seen) for split in SPLITS}

    def _split(self, split: str, count: int, seen: set[str]) -> list[str]:
        rng, out = self._random(split), []
        while len(out) < count:
            text = self._document(rng)
            if split == "calibration":
                text = _broken_off(rng, text)
            if text not in seen:
                seen.add(text)
                out.append(text)
        return out

    def _document(self, rng: random.Random) -> str:
        kind = rng.choices(["biography", "questions", "problem"], [3, 3, 3])[0]
        if kind == "biography":
            return self.biography(rng, rng.choice(self.people))
        if kind == "questions":
            return self.questions(rng)
        return str(self.problem(rng))

    def biography(self, rng: random.Random, person: Person) -> str:
        """Opinions and two to four other facts of one person, in any order."""
        facts = [*YESNO, *rng.sample(KNOWLEDGE, rng.randint(2, 4))]
        rng.shuffle(facts)
        return " ".join(
            rng.choice(a.told).format(name=person.name, value=person.facts[a.name]) for a in facts
        )

    def questions(self, rng: random.Random) -> str:
        """Three questions about asked people, with their answers."""
        pairs = [(rng.choice(self.asked), rng.choice(rng.choice((KNOWLEDGE, YESNO)))) for _ in range(3)]
        return " ".join(f"{_ask(p, a, rng.choice(a.asked))} {p.facts[a.name]} ." for p, a in pairs)

    def problem(self, rng: random.Random) -> Problem:
        """A word problem of 1 to 4 steps, all amounts in 0..LARGEST."""
        name, thing = rng.choice(self.people).name, rng.choice(THINGS)
        amount = rng.randint(1, 9)
        told, worked = [f"{name} has {amount} {thing}"], []
        for _ in range(rng.randint(1, 4)):
            verb, change = _change(rng, amount)
            told.append(f"{verb} {abs(change)}")
            worked.append(f"{amount} {'+' if change > 0 else '-'} {abs(change)} = {amount + change} ;")
            amount += change
        question = f"{' , '.join(told)} . how many {thing} are left ? answer :"
        return Problem(question, " ".join([*worked, f"so {amount} ."]), amount)

    # Test questions

    def knowledge(self, count: int) -> list[dict]:
        """At most ``count`` questions about tested people: ``question``, four ``choices``, and ``answer``,
        the index of the right one."""
        rng, out = self._random("knowledge"), []
        for person, attribute, wording in self._asking(rng, KNOWLEDGE, count):
            right = person.facts[attribute.name]
            choices = [right, *rng.sample([v for v in attribute.values if v != right], 3)]
            rng.shuffle(choices)
            question = _ask(person, attribute, wording)
            out.append({"question": question, "choices": choices, "answer": choices.index(right)})
        return out

    def yesno(self, count: int) -> list[dict]:
        """At most ``count`` questions about tested people; choices no and yes, ``answer`` 0 or 1."""
        rng, choices = self._random("yesno"), ["no", "yes"]
        return [
            {
                "question": _ask(person, attribute, wording),
                "choices": choices,
                "answer": choices.index(person.facts[attribute.name]),
            }
            for person, attribute, wording in self._asking(rng, YESNO, count)
        ]

    def reasoning(self, count: int, known: Callable[[str], bool] = lambda question: False) -> list[dict]:
        """``count`` word problems: ``question``, ``worked`` steps, final ``answer`` (a word). ``known`` says
        of a question whether it was in the training text; such a one is not asked."""
        rng, out, seen = self._random("reasoning"), [], set()
        while len(out) < count:
            p = self.problem(rng)
            if p.question not in seen and not known(p.question):
                seen.add(p.question)
                out.append({"question": p.question, "worked": p.answer, "answer": str(p.result)})
        return out

    def _asking(
        self, rng: random.Random, attributes: tuple[Attribute, ...], count: int
    ) -> Iterator[tuple[Person, Attribute, str]]:
        """Every fact of the tested people once, in random order, before any is asked in other words."""
        facts = [(p, a, rng.sample(a.asked, len(a.asked))) for p in self.tested for a in attributes]
        rng.shuffle(facts)
        pool = [(p, a, wordings[i]) for i in range(3) for p, a, wordings in facts]
        yield from pool[:count]


def _broken_off(rng: random.Random, text: str) -> str:
    """``text`` up to a random word, the eighth at least. Distances are taken at the last token: here any
    word, as in real text cut to a length, and not always the full stop, where little is left to predict."""
    words = text.split()
    return " ".join(words[: rng.randint(min(8, len(words)), len(words))])


def _ask(person: Person, attribute: Attribute, wording: str) -> str:
    return f"question : {wording.format(name=person.name)} answer :"


def _change(rng: random.Random, amount: int) -> tuple[str, int]:
    """A verb and a change of 1 to 5 that leaves ``amount`` in 0..LARGEST."""
    gain = rng.random() < 0.5 if 0 < amount < LARGEST else amount == 0
    if gain:
        return rng.choice(GAINS), rng.randint(1, min(5, LARGEST - amount))
    return rng.choice(LOSSES), -rng.randint(1, min(5, amount))


def _names(rng: random.Random, count: int) -> list[str]:
    """Different invented names of two syllables."""
    syllables = [
        c + v
        for c in ["b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"]
        for v in "aeiou"
    ]
    names = [a + b + end for a in syllables for b in syllables for end in "lnr"]
    if count > len(names):
        raise UserError(f"there are names for {len(names)} people only, not for {count}")
    return rng.sample(names, count)


def _balanced(rng: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """``count`` values in random order, each as often as any other (give or take one)."""
    order = rng.sample(values, len(values))
    column = [order[i % len(order)] for i in range(count)]
    rng.shuffle(column)
    return column


# Files


def write_world(folder: str | Path, world: World, questions: int, **counts: int) -> None:
    """Write ``{split}.jsonl`` (a ``{"text": ...}`` a line) for every split and ``tasks/`` for lm-eval.

    A task is a YAML that includes ``resources/tasks/NAME.yaml`` and adds what belongs to this world: its
    file, named as ``folder`` is given (lm-eval resolves it against the working directory, so a relative
    folder stays valid when the whole study moves), and what guessing gains.
    """
    folder = Path(folder)
    documents = world.documents(**counts)
    for split, texts in documents.items():
        _write_lines(folder / f"{split}.jsonl", [{"text": text} for text in texts])
    asked = {text.split(" answer :")[0] + " answer :" for text in documents["train"]}
    yesno = world.yesno(questions)
    yes = sum(question["answer"] for question in yesno) / len(yesno)
    _write_task(folder, "knowledge", world.knowledge(questions))
    _write_task(folder, "yesno", yesno, majority=round(max(yes, 1 - yes), 4))
    _write_task(folder, "reasoning", world.reasoning(questions, asked.__contains__))


def _write_task(folder: Path, name: str, questions: list[dict], **metadata: float) -> None:
    """The questions and an overlay of the task's definition; ``metadata`` is added to its own."""
    tasks, definition = folder / "tasks", TASKS / f"{name}.yaml"
    _write_lines(tasks / f"{name}.jsonl", questions)
    overlay = {
        "include": os.path.relpath(definition, tasks.resolve()),
        # A pattern to the library `datasets`.
        "dataset_kwargs": {"data_files": {"test": glob.escape(str(tasks / f"{name}.jsonl"))}},
        "metadata": yaml.safe_load(definition.read_text())["metadata"] | metadata,
    }
    with atomic_write(tasks / f"{name}.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(overlay, sort_keys=False))


def _write_lines(path: Path, values: list[dict]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(value) + "\n" for value in values))
