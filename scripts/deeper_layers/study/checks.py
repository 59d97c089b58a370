"""Checks of a study before anything runs: what the programs would refuse, and what does not fit together.

While Snakemake reads the configuration, the class of each section's settings is constructed here; that of a
program's section is the program's own, and more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..checkpoints.hub_cache import cache_folder, is_offline
from ..data.local_source import HUB_ID
from ..errors import UserError
from ..healing.methods import METHODS
from ..layout import PRUNED
from ..models.artifacts import ReplacedTensors
from ..pruning.layer_set import LayerSet
from ..pruning.strategies import STRATEGIES
from ..pruning.strategy import SECTIONS
from ..settings.base import Settings
from ..settings.distances import Distances
from ..settings.healing import HealedCuts
from ..settings.losses import ChoiceLosses
from ..settings.model import Model, TrainedModel
from ..settings.speed import SpeedSettings
from ..settings.strategies import StrategySettings
from ..settings.study import Configuration
from ..settings.suites import HELD_OUT, Suite, held_out
from ..settings.texts import WORLD_TASKS, Text
from .asked import check_study
from .check_texts import check_text_of, check_texts
from .evidence import measured, sections
from .exports import exported
from .schema import MissingError, did_you_mean
from .sources import ResolvedModel
from .study import Study

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # several make up one name of a file
# Names that the folder of the results, a model's and a recipe's have for other things.
RESERVED = {
    "models": {"texts", "tasks", "figures", "logs", "benchmarks", "export"},
    "recipes": {"checkpoints", "tokens", PRUNED},
    "suites": {"heal", "training", "adapter", "index"},
}


def check(study: Study) -> list[str]:
    """Raise a UserError for a study that makes no sense, a MissingError for one that lacks a part. Returns
    lines about what makes sense, but less than it seems to."""
    _check_names(study)
    _check_settings(study)
    for model in study.models:
        _check_model(study, model)
    _check_offline(study)
    _check_first_strategy(study)
    _check_readers(study)
    check_texts(study)
    for text in study.config["export"]:
        _check_export(study, text)
    return list(dict.fromkeys(line for model in study.models for line in check_study(study, model)))


def _check_names(study: Study) -> None:
    chosen = {kind: study.config["study"][kind] for kind in ("models", "strategies", "recipes", "suites")}
    for kind, names in chosen.items():
        known = {**STRATEGIES, **study.config[kind]} if kind == "strategies" else study.config[kind]
        for name in names:
            if name not in known:
                raise MissingError(f"study.{kind}: {name!r} is not known{did_you_mean(name, known)}")
    for name, entry in study.config["strategies"].items():
        _check_strategy(name, entry)
    for kind, reserved in RESERVED.items():
        for name in chosen[kind]:
            check_name(kind, name, reserved)


def _check_strategy(name: str, entry: Mapping[str, Any]) -> None:
    """An entry of ``strategies``: its rule, and only what that reads."""
    where, rule = f"strategies.{name}", entry["rule"]
    check_name("strategies", name)
    if rule not in STRATEGIES:
        raise MissingError(f"{where}.rule: {rule!r} is not known{did_you_mean(rule, STRATEGIES)}")
    if name in STRATEGIES and name != rule:
        raise UserError(f"{where}: {name} is a rule by itself; give {rule} with settings another name")
    construct(StrategySettings, where, entry)
    chosen = STRATEGIES[rule]
    read = {"rule", *chosen.keys} | ({"text"} if chosen.needs else set())
    read |= set() if rule == "published" else {"protect"}
    defaults = {one.name: one.default for one in fields(StrategySettings)}
    for key, value in entry.items():
        if key not in read and value not in (defaults[key], None, []):
            raise UserError(f"{where}.{key}: {rule} does not read it; it reads {', '.join(sorted(read))}")


def _check_model(study: Study, name: str) -> None:
    model = study.model(name)
    if model.kind == "pretrain":
        check_text_of(study, f"models.{name}.pretrain", model.pretraining)
    elif model.kind == "hub" and not HUB_ID.fullmatch(model.id):
        raise UserError(
            f"models.{name}.source: {model.id!r} is neither pretrain, nor a folder here, nor an id of "
            "the hub, which is OWNER/NAME"
        )
    elif model.kind == "folder":
        _check_folder(name, Path(model.id))
    _check_layout(study, model)
    for n in study.removals(name) or []:
        if model.n_layers is not None and n >= model.n_layers:
            raise UserError(
                f"study.remove: n = {n} leaves nothing of {name}, which has {model.n_layers} layers; "
                f"write at most {model.n_layers - 1}"
            )


def _check_folder(name: str, folder: Path) -> None:
    """It must be a checkpoint."""
    if not folder.is_dir():
        raise UserError(f"models.{name}.source: there is no folder {folder}")
    if not (folder / "config.json").is_file():
        raise UserError(f"models.{name}.source: {folder} has no config.json, so it is no checkpoint")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"models.{name}.source: {folder} has no .safetensors file; "
            "save it with model.save_pretrained(folder, safe_serialization=True)"
        )


def _check_layout(study: Study, model: ResolvedModel) -> None:
    """Whether the checkpoint is read as it is, or rewritten."""
    is_qwen = model.config and model.config.get("model_type") == "qwen"
    if is_qwen and model.name not in study.models_to_convert("qwen"):
        raise UserError(f"models.{model.name}: first-generation Qwen runs only as Qwen2; write convert: qwen")


def _check_offline(study: Study) -> None:
    if is_offline() and study.uncached_models:
        ids = ", ".join(study.model(model).id for model in study.uncached_models)
        raise UserError(
            f"not in the cache {cache_folder()}, and HF_HUB_OFFLINE is set: {ids}; unset it, or run "
            "`hf download ID` where there is a network, copy the cache here, and set HF_HOME to it"
        )


def _check_first_strategy(study: Study) -> None:
    """It is the one that figures show, so it must have blocks of every model."""
    for model in study.models:
        if not _chosen_by_first(study, model):
            raise UserError(
                f"study.strategies: {study.strategies[0]} has no blocks of {model}, and figures show the "
                "first strategy; put another one first"
            )


def _chosen_by_first(study: Study, model: str) -> set[int]:
    """The n for which the first strategy has a block."""
    return {choice.n for choice in study.expected(model) if choice.strategy == study.strategies[0]}


def _check_readers(study: Study) -> None:
    """What reads a text: recipes, suites and the distances."""
    for recipe in study.recipes:
        for model in study.config["recipes"][recipe].get("models", {}):
            if model not in (known := study.config["models"]):
                raise MissingError(
                    f"recipes.{recipe}.models: {model!r} is not known{did_you_mean(model, known)}"
                )
        for model in study.models:
            settings = study.recipe(recipe, model)
            check_text_of(study, f"recipes.{recipe}", settings)
            for strategy in settings.get("strategies", []):
                if strategy not in study.strategies:
                    raise UserError(f"recipes.{recipe}.strategies: {strategy!r} is not in study.strategies")
    for suite in study.suites:
        settings = study.suite(suite)
        if reader := held_out(settings):
            kind, read = reader
            count = {"loss": "sequences", "perplexity": "documents"}[kind]
            check_text_of(study, f"suites.{suite}.{kind}", read, count)
            continue
        check_text_of(study, f"suites.{suite}", settings)
        if settings.get("text") in study.sampled_texts:
            raise UserError(f"suites.{suite}.text: only a generated text has tasks of its own")
        _check_tasks(study, suite)
    for strategy, chosen in study.rules.items():
        for kind in sorted(STRATEGIES[chosen.rule].needs):
            section = SECTIONS[kind]
            if section not in study.config:
                raise MissingError(
                    f"{section}: the strategy {strategy} needs them; write {section}: {{text: NAME}}"
                )
            where = f"strategies.{strategy}" if chosen.text else section
            check_text_of(study, where, measured(study.config, chosen.evidence(kind)), "samples")


def _check_export(study: Study, text: str) -> None:
    model, treatment, cut = exported(text)
    for name, known in ((model, study.models), (treatment, [*study.recipes, PRUNED])):
        if name not in known:
            raise UserError(f"export: {text!r}: {name!r} is not in the study{did_you_mean(name, known)}")
    n_layers, removals = study.model(model).n_layers, study.removals(model)
    if not cut.isdecimal():
        block = LayerSet.parse(cut)
        if n_layers is not None:
            block.kept(n_layers)
    elif removals is not None and int(cut) not in [0, *removals]:
        removed = ", ".join(map(str, [0, *removals]))
        raise UserError(f"export: {text!r}: the study does not remove {cut} layers; it removes {removed}")
    elif n_layers is not None and int(cut) not in _chosen_by_first(study, model):
        raise UserError(f"export: {text!r}: {study.strategies[0]} has no block of {cut} layers of {model}")


def _check_settings(study: Study) -> None:
    """Each section by itself: what its class, or that of the program that takes it, would refuse."""
    config = study.config
    construct(Configuration, "", config)
    for text, settings in config["texts"].items():
        check_name("texts", text)
        construct(Text, f"texts.{text}", settings)
    for name in study.models:
        model = config["models"][name]
        construct(Model, f"models.{name}", model)
        if model["source"] == "pretrain":
            construct(TrainedModel, f"models.{name}.pretrain", model["pretrain"])
    for section, settings in {"distances": Distances, "losses": ChoiceLosses}.items():
        if section in sections(study.evidence) and section in config:
            construct(settings, section, config[section])
    for recipe in study.recipes:
        for name in study.models:
            _check_recipe(study, recipe, name)
    for suite in study.suites:
        construct(Suite, f"suites.{suite}", study.suite(suite))
        if reader := held_out(study.suite(suite)):
            construct(HELD_OUT[reader[0]], f"suites.{suite}.{reader[0]}", reader[1])
    construct(SpeedSettings, "speed", config["speed"])


def _check_recipe(study: Study, recipe: str, model: str) -> None:
    """A recipe for a model: which cuts, by what method, with which settings of it."""
    where, values, name = f"recipes.{recipe}", study.recipe(recipe, model), study.method_name(recipe)
    construct(HealedCuts, where, values)
    if name not in METHODS:
        raise MissingError(f"{where}.method: {name!r} is not known{did_you_mean(name, METHODS)}")
    if values["method"] != name:
        raise UserError(f"{where}.models.{model}.method: a recipe has one method; write another recipe")
    method = study.method(recipe)
    known = [one.name for one in fields(method.SETTINGS)]
    for key in values.get("settings") or {}:
        if key not in known:
            raise UserError(f"{where}.settings: {name} has no setting {key!r}{did_you_mean(key, known)}")
    if "repair" in method.NEEDS:
        _check_repair(study, where, values)
    construct(method.SETTINGS, where, method.settings(values))
    if values["control"] and not method.has_control(method.SETTINGS.of(method.settings(values))):
        objective = "" if not method.HAS_CONTROL else " without cross_entropy"
        raise UserError(f"{where}.control: {name}{objective} does nothing to the uncut model; write false")


def _check_repair(study: Study, where: str, values: Mapping) -> None:
    """A recipe that begins with what another one repairs."""
    repairs = [one for one in study.recipes if study.method(one).ARTIFACT is ReplacedTensors]
    after = (values.get("settings") or {}).get("after")
    if after not in repairs:
        raise UserError(
            f"{where}.settings.after: {after!r} is no recipe of the study that repairs; name one of "
            f"{', '.join(repairs) or 'its own, of a method such as linear'}"
        )


def construct(cls: type[Settings], where: str, values: Mapping) -> None:
    """Construct a class of settings; a message begins with the place in the configuration."""
    try:
        cls.of(values)
    except UserError as error:
        raise UserError(f"{where}{str(error).removeprefix(cls.WHAT)}".lstrip(".: ")) from None


def check_name(kind: str, name: str, reserved: Iterable[str] = ()) -> None:
    """Raise a UserError for a name that cannot be a folder of the results."""
    if name in reserved or not NAME.fullmatch(name):
        others = f" and none of {', '.join(sorted(reserved))}" if reserved else ""
        raise UserError(
            f"{kind}.{name}: not a name that can be a folder here; use letters, digits, . _ -{others}"
        )


def _check_tasks(study: Study, suite: str) -> None:
    """The tasks of a generated text, or of a folder of one's own."""
    where, settings = f"suites.{suite}", study.suite(suite)
    if text := settings.get("text"):
        for task in settings["tasks"]:
            if task not in WORLD_TASKS:
                raise UserError(
                    f"{where}.tasks: the generated text {text} has no task {task!r}, it has "
                    f"{', '.join(WORLD_TASKS)}; for lm-eval's own, give a suite without text (text: null, if "
                    "a suite of this name in config.yaml has one: mappings are merged)"
                )
    if include := settings.get("include"):
        _check_include(f"{where}.include", Path(os.path.expanduser(include)))


def _check_include(where: str, folder: Path) -> None:
    """A folder of one's own has definitions of tasks."""
    if not folder.is_dir():
        raise UserError(f"{where}: there is no folder {folder}")
    if not next((path for kind in ("yaml", "yml", "py") for path in folder.rglob(f"*.{kind}")), None):
        raise UserError(f"{where}: {folder} has no .yaml file, so it defines no task")
