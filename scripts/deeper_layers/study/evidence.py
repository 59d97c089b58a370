"""What the strategies of a study choose by: which rule each is, and how what that needs is measured."""

from __future__ import annotations

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
    return [name for name in evidence if name.partition("-")[0] == kind]


def measured(config: Mapping[str, Any], evidence: str) -> dict[str, Any]:
    """The settings by which evidence of this name is measured, its text among them."""
    kind, _, text = evidence.partition("-")
    settings: dict[str, Any] = config[SECTIONS[kind]]
    return settings | {"text": text} if text else settings
