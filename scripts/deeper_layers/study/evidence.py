"""What the strategies of a study choose by: which rule each is, and how what that needs is measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..pruning.strategy import SECTIONS
from ..settings.strategies import StrategySettings


def rules(config: Mapping[str, Any], strategies: Iterable[str]) -> dict[str, StrategySettings]:
    """The rule of each strategy, with its settings; a strategy without an entry is a rule by itself."""
    own = config["strategies"]
    return {name: StrategySettings.of({"rule": name} | own.get(name, {})) for name in strategies}


def of_kind(evidence: Iterable[str], kind: str) -> list[str]:
    """The names of a kind of evidence, one for each text."""
    return [name for name in evidence if kind_of(name) == kind]


def of_section(evidence: Iterable[str], section: str) -> list[str]:
    """The names of what a section of the configuration says how to measure."""
    return [name for name in evidence if SECTIONS[kind_of(name)] == section]


def sections(evidence: Iterable[str]) -> list[str]:
    """The sections of the configuration that say how evidence of these names is measured."""
    return sorted({SECTIONS[kind_of(name)] for name in evidence})


def kind_of(evidence: str) -> str:
    """The kind of evidence of this name."""
    return re.split("[-+]", evidence, maxsplit=1)[0]


def protected(evidence: str) -> list[int]:
    """The layers that may not go, of a kind that is searched for."""
    return [int(part.replace("m", "-")) for part in _searched(evidence) if not part.startswith("by")]


def step(evidence: str) -> int:
    """How many layers go at a time, of a kind that is searched for."""
    return next((int(part[2:]) for part in _searched(evidence) if part.startswith("by")), 1)


def _searched(evidence: str) -> list[str]:
    return evidence.partition("-")[0].split("+")[1:]


def measured(config: Mapping[str, Any], evidence: str) -> dict[str, Any]:
    """The settings by which evidence of this name is measured, its text among them."""
    text = evidence.partition("-")[2]
    settings: dict[str, Any] = config[SECTIONS[kind_of(evidence)]]
    return settings | {"text": text} if text else settings
