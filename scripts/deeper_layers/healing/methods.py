"""The healing methods that a recipe can name."""

from __future__ import annotations

from importlib import import_module

from ..settings.healing import HealedCuts
from .method import Method

METHODS = {  # name -> module of this folder, whose METHOD it is
    "qlora": "qlora",
    "repaired_qlora": "repaired_qlora",
    "partial": "partial",
    "linear": "linear",
    "scale": "scale",
}
DEFAULT: str = HealedCuts.method


def rule_name(name: str) -> str:
    """The rule of a method: ``heal`` is that of the default one."""
    return "heal" if name == DEFAULT else f"heal_{name}"


def healing_method(name: str) -> Method:
    """The method of this name, imported only now: another one changes nothing for it."""
    method: Method = import_module(f".{METHODS[name]}", __package__).METHOD
    return method
