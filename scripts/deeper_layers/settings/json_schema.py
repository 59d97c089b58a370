"""The schema of a configuration, from the classes of its settings: JSON schema 2020-12 as plain mappings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any

from .base import Settings
from .healing import HealedCuts, Healing
from .study import Configuration

TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}
BOUNDS = {"least": "minimum", "most": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}


@cache
def schema() -> dict:
    """The schema of a whole configuration."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a study",
        "description": "Every key of config.yaml and of the overlays in studies/, its meaning and default.",
        **section_schema(Configuration),
    }


def section_schema(settings: type[Settings]) -> dict:
    """The schema of a mapping with the keys of a class of settings."""
    keys = [one for one in fields(settings) if one.metadata["key"]]
    required = [one.name for one in keys if one.default is MISSING and one.default_factory is MISSING]
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": {one.name: _described(one) for one in keys},
    }


def with_defaults(config: Mapping) -> dict:
    """A copy of a valid configuration with the default of every key that it lacks. In a recipe of another
    method those of the default one's keys stay away: that method has defaults of its own."""
    filled = copy.deepcopy(dict(config))
    _fill(filled, schema())
    for name, recipe in filled["recipes"].items():
        if recipe["method"] != HealedCuts.method:
            for key in {one.name for one in fields(Healing)} - set(config["recipes"][name]):
                recipe.pop(key, None)
    return filled


def _fill(values: dict, mapping: Mapping) -> None:
    for key, one in mapping.get("properties", {}).items():
        if "default" in one and key not in values:
            values[key] = copy.deepcopy(one["default"])
        if isinstance(values.get(key), dict):
            _fill(values[key], one)
    if isinstance(named := mapping.get("additionalProperties"), dict):
        for value in values.values():
            _fill(value, named)


def _described(one: Field) -> dict:
    """The schema of a key."""
    reruns = "" if one.metadata.get("determines", True) else " A change reruns nothing."
    found = {"description": one.metadata["help"] + reruns}
    if "section" in one.metadata:
        return found | _section(one)
    found |= _value(one.metadata, optional=one.default is None)
    if one.metadata["several"] and one.default == () and not one.metadata.get("empty"):
        return found  # absent, unless it is given
    if one.default is not MISSING:
        default = one.metadata.get("none") if one.default is None else one.default
        found["default"] = list(default) if isinstance(default, tuple) else default
    return found


def _section(one: Field) -> dict:
    settings = one.metadata["section"]
    found = {"type": "object"} if settings is dict else section_schema(settings)
    if one.metadata["named"]:
        found = {"type": "object", "additionalProperties": found}
    return found if one.default_factory is MISSING else {**found, "default": {}}


def _value(bounds: Mapping[str, Any], optional: bool) -> dict:
    """The schema of a setting's value: one or several, or a word or null in its place."""
    found = _one_value(bounds)
    if bounds["several"]:
        found = {"type": "array", "items": found}
        found |= {} if bounds.get("empty") else {"minItems": 1}
        found |= {"uniqueItems": True} if bounds.get("unique") else {}
    if not optional:
        return found
    if "none" in bounds:
        return {"oneOf": [{"const": bounds["none"]}, found]}
    if "enum" in found:
        return {"enum": [*found["enum"], None]}
    return found | {"type": [found["type"], "null"]}


def _one_value(bounds: Mapping[str, Any]) -> dict:
    if "choices" in bounds:
        return {"enum": list(bounds["choices"])}
    found = {"type": TYPES[bounds["kind"]]} | ({"minLength": 1} if bounds["kind"] is str else {})
    return found | {BOUNDS[name]: bounds[name] for name in BOUNDS if name in bounds}
