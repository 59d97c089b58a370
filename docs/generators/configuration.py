"""resources/config.schema.yaml and docs/config.md, from the classes of the settings."""

from __future__ import annotations

import yaml

from deeper_layers.healing.methods import DEFAULT, METHODS, healing_method
from deeper_layers.settings.json_schema import schema, section_schema

HEADER = """\
# Written by `make docs` from scripts/deeper_layers/settings, for editors that complete and check YAML by a
# schema. Snakemake checks every configuration by the same classes.
"""
NAMES = {  # of keys of your own
    "models": "MODEL",
    "strategies": "STRATEGY",
    "texts": "TEXT",
    "recipes": "RECIPE",
    "suites": "SUITE",
}


def schema_file() -> str:
    """The schema as YAML."""
    return HEADER + yaml.safe_dump(schema(), sort_keys=False, width=110, allow_unicode=True)


def page() -> str:
    """The reference: a table for each mapping of the configuration."""
    parts = [
        "# Configuration",
        "",
        "Written by `make docs` from the classes in `scripts/deeper_layers/settings`, by which Snakemake",
        "checks every configuration before anything runs; `resources/config.schema.yaml`, made from them",
        "too, is for editors that complete and check YAML. `config.yaml` is the default study; another one",
        "is an overlay, `snakemake --configfile studies/mine.yaml`: mappings are merged key by key, lists",
        "are replaced. If it studies models of its own, not trained here, it stands alone: nothing of",
        "`config.yaml` counts, and it names an `outdir`. Paths may hold any character but line breaks,",
        "`outdir` no braces; a leading `~` is the home folder.",
        "",
        *section(schema(), ""),
        *methods(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def methods() -> list[str]:
    """A table of the settings of each healing method but the default one."""
    lines = []
    for name in METHODS:
        if name != DEFAULT:
            method = healing_method(name)
            about = f"With `method: {name}` ({method.TITLE}); keys that recipes have too may be given there."
            settings = section_schema(method.SETTINGS) | {"description": about}
            lines += section(settings, f"recipes.RECIPE.settings, {name}")
    return lines


def section(mapping: dict, path: str) -> list[str]:
    """The table of a mapping's keys, then those of the mappings inside it."""
    lines, inside, required = [], [], mapping.get("required", [])
    if path:
        lines += [f"## `{path}`", "", mapping.get("description", ""), ""]
    keys = mapping.get("properties", {})
    if keys:
        lines += ["| key | is | default | meaning |", "|---|---|---|---|"]
    for name, value in keys.items():
        where = f"{path}.{name}".lstrip(".")
        default = "required" if name in required else shown(value["default"]) if "default" in value else ""
        text = value.get("description", "").replace("|", r"\|")
        lines.append(f"| `{name}` | {kind(value)} | {default} | {text} |")
        below = value.get("additionalProperties")
        if isinstance(below, dict) and "properties" in below:
            one = f"{where}.{NAMES[name]}"
            inside += section(below | {"description": value["description"]}, one)
        elif "properties" in value:
            inside += section(value, where)
    return [*lines, "", *inside]


def kind(value: dict) -> str:
    """What a value may be."""
    if "oneOf" in value:
        return " or ".join(kind(one) for one in value["oneOf"])
    if "const" in value:
        return shown(value["const"])
    if "enum" in value:
        return ", ".join(map(shown, value["enum"]))
    types = value["type"] if isinstance(value["type"], list) else [value["type"]]
    words = {"object": "mapping", "array": "list", "string": "text", "integer": "whole number"}
    return " or ".join(words.get(one, one) for one in types if one != "null") + limits(value)


def limits(value: dict) -> str:
    """The bounds of a number."""
    if "minimum" in value and "maximum" in value:
        return f", {value['minimum']:g} to {value['maximum']:g}"
    if "minimum" in value:
        return f", at least {value['minimum']:g}"
    if "exclusiveMinimum" in value:
        return f", more than {value['exclusiveMinimum']:g}"
    return ""


def shown(value) -> str:
    """A value as it is written in YAML; ``null`` as nothing."""
    if value is None:
        return "none"
    return f"`{yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}`"
