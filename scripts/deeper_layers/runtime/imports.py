"""Imports without the search for garbage, which takes a quarter of their time and finds next to nothing."""

from __future__ import annotations

import functools
import gc
import importlib.abc
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]


def hasten() -> None:
    """From here on, in this process: no search for garbage while a module is executed, nor, later, among what
    there is now and what comes with the first import of torch, all of which stays until the end."""
    _finder()
    gc.freeze()


def after_import(name: str, change: Change) -> None:
    """Let ``change(module)`` follow as soon as the module ``name`` is executed, now if it was already."""
    if module := sys.modules.get(name):
        change(module)
    else:
        _finder().changes[name] = change


def _finder() -> _Finder:
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    sys.meta_path.insert(0, found := _Finder())
    return found


class _Finder(importlib.abc.MetaPathFinder):
    """Leaves the finding to the others, and wraps the execution of what they find."""

    def __init__(self) -> None:
        self.changes: dict[str, Change] = {}

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if not gc.isenabled() and name not in self.changes:  # within another import
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and isinstance(spec.loader, importlib.abc.FileLoader):
            how = functools.partial(self._execute, name, spec.loader.exec_module, "torch" in sys.modules)
            spec.loader.exec_module = how  # type: ignore[method-assign]
        return spec

    def _execute(self, name: str, execute: Change, had_torch: bool, module: ModuleType) -> None:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            execute(module)
            if change := self.changes.pop(name, None):
                change(module)
        finally:
            # With torch just imported there is no model yet, which may become garbage.
            if was_enabled and not had_torch and "torch" in sys.modules:
                gc.freeze()
            if was_enabled:
                gc.enable()
