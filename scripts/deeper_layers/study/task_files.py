"""The size of tasks that are defined in a folder of one's own, from their files: no lm-eval, no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .sources import expanded

CHARACTERS_PER_TOKEN = 4  # of English, about
ANSWER = 256  # tokens that lm-eval lets a model generate where a task does not say how many


class _Loader(yaml.SafeLoader):
    """Takes ``!function`` and other tags for their text."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))


def definition(folder: Path, task: str) -> tuple[Path, Mapping[str, Any]] | None:
    """The YAML in ``folder`` or below that defines ``task``, and what it says; None if there is none that
    this simple reading understands."""
    for path in sorted(folder.rglob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            found = yaml.load(text, _Loader) if task in text else None  # a folder may hold thousands
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(found, dict) and found.get("task") == task:
            return path, found
    return None


def documents(path: Path, found: Mapping[str, Any]) -> list[dict]:
    """The documents of a task: of the JSON lines that its definition names, or that lie beside it."""
    keywords = found.get("dataset_kwargs") or {}
    named = keywords.get("data_files") or keywords.get("file") or f"{path.stem}.jsonl"
    if isinstance(named, dict):
        split = found.get("test_split") or found.get("validation_split")
        named = named.get(split) or next(iter(named.values()), "")
    named = str(named[0] if isinstance(named, list) and named else named)
    for file in (path.parent / named, Path(named)):
        try:
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        except (OSError, ValueError):
            continue
        return [line for line in lines if isinstance(line, dict)]
    return []


@cache
def own_task(folder: Path, task: str) -> dict[str, Any] | None:
    """What ``TaskSize`` has of a task of one part; None if its files do not tell."""
    defined = definition(folder, task)
    found = documents(*defined) if defined else []
    if not defined or not found:
        return None
    says = defined[1]
    is_written = says.get("output_type") == "generate_until"
    choices = [[] if is_written else _choices(says, document) for document in found]
    answers = [len(str(choice)) for of_one in choices for choice in of_one]
    answer = max(1, _tokens(sum(answers) / len(answers))) if answers else 0 if is_written else 2
    asked = [_text(says, document) for document in found]
    description = len(str(says.get("description") or ""))
    characters = description + sum(map(len, asked)) / len(asked)
    generation = says.get("generation_kwargs") or {}
    return {
        "questions": len(found),
        "inputs": max(1, *map(len, choices)),
        "tokens": max(1, _tokens(characters) + answer),
        "generated": int(generation.get("max_gen_toks", ANSWER)) if is_written else 0,
        "shots": int(says.get("num_fewshot") or 0),
        "answer": answer,
        "same_examples": (says.get("fewshot_config") or {}).get("sampler") == "first_n",
    }


def _tokens(characters: float) -> int:
    return round(characters / CHARACTERS_PER_TOKEN)


def _choices(says: Mapping[str, Any], document: Mapping[str, Any]) -> list:
    """Answers to choose from: a list of the definition or of the document, or the right one and the wrong;
    none if that is not known."""
    given = says.get("doc_to_choice")
    if isinstance(given, str):
        name = re.sub(r"[{}\s]", "", given)
        given = document.get(name, document.get("wrong"))
        if given is document.get("wrong") and isinstance(given, list):
            return [document.get("right", ""), *given]
    return given if isinstance(given, list) else []


def _text(says: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What the model reads, about: the template of the question, its fields filled in."""
    template = str(says.get("doc_to_text") or "")
    return re.sub(r"{{\s*(\w+)[^}]*}}", lambda field: str(document.get(field[1], "")), template)


def fetches(suite: Mapping[str, Any]) -> bool:
    """Whether a suite (an entry of ``suites``) has tasks whose data are neither made by the study nor files
    of the folder that it names."""
    folder = suite.get("include")
    return not suite.get("text") and not all(
        folder and own_task(Path(expanded(folder)), task) for task in suite.get("tasks") or ()
    )
