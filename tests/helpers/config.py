"""Configurations: the default one, others made from it, and the studies of studies/."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import yaml
from snakemake.utils import update_config

from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.study.checks import check
from deeper_layers.study.study import Study

ROOT = Path(__file__).parents[2]

LAYERS = {  # from the models' own config.json
    "llama-2-7b": 32,
    "llama-2-13b": 40,
    "llama-2-70b": 80,
    "qwen-7b": 32,
    "qwen-14b": 40,
    "mistral-7b": 32,
    "phi-2": 32,
    "llama-3.1-8b": 32,
    "llama-3.2-1b": 16,
    "qwen3-1.7b": 28,
    "qwen3-8b": 36,
    "olmo-2-7b": 32,
    "gemma-3-1b": 26,
    "mistral-7b-v0.3": 32,
    "smollm3-3b": 36,
    "smollm2": 30,
    "qwen2.5-1.5b-instruct": 28,
}


def full_config(path: Path = ROOT / "config.yaml") -> dict:
    """A configuration with the defaults of its schema filled in, as the Snakefile sees it."""
    return with_defaults(yaml.safe_load(path.read_text()))


def replaced(config: dict, changes: dict) -> dict:
    """A copy of ``config`` with the values of ``changes``, {"study__remove": [3]}."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[key] = value
    return config


def changed(**changes) -> dict:
    """The default configuration with dotted keys replaced: changed(study__remove=[3])."""
    return replaced(full_config(), changes)


def checked(config: dict) -> Study:
    """The study of a configuration with its defaults, as the Snakefile makes it. Raises UserError."""
    study = Study(config)
    check(study)
    return study


def merged(path) -> dict:
    """The default configuration with a study laid over it, as Snakemake does it, before the defaults."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load(path.read_text()))
    return config


def cache(folder, config: dict, shapes: dict | None = None) -> None:
    """Put a config.json for each hub model of a configuration where the cache has it: that of ``shapes``, or
    one that says no more than its depth."""
    for name, model in config["models"].items():
        if model["source"] == "pretrain":
            continue
        repository = folder / f"models--{model['source'].replace('/', '--')}"
        commit = model["revision"] or "0" * 40
        (repository / "snapshots" / commit).mkdir(parents=True)
        kind = "qwen" if model.get("convert") else "llama"
        settings = {"num_hidden_layers": LAYERS[name], "model_type": kind}
        settings = (shapes or {}).get(name, settings)
        (repository / "snapshots" / commit / "config.json").write_text(json.dumps(settings))
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text(commit)
