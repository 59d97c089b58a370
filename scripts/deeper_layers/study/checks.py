"""Checks of a study's settings: what the programs would refuse, and what does not fit together.

Each program's own class of settings is constructed here, while Snakemake reads the configuration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..settings.base import Settings
from ..settings.distances import DistanceSettings
from ..settings.healing import Healing
from ..settings.model import Pretraining
from ..settings.speed import SpeedSettings
from ..settings.suites import LossSettings, TaskSettings
from ..settings.texts import WorldSettings
from .schema import MissingError, did_you_mean

if TYPE_CHECKING:
    from .study import Study

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # several make up one name of a file
WORLD_TASKS = ("knowledge", "reasoning", "yesno")
ACCOUNT = re.compile(r"[A-Za-z0-9][\w.-]*")


def check_settings(study: Study) -> None:
    """Raise a UserError for settings that a program of the study would refuse."""
    config = study.config
    for text, settings in config["texts"].items():
        check_name("texts", text)
        if settings["source"] == "generate":
            construct(WorldSettings, f"texts.{text}", settings)
    for model in study.models_from("pretrain"):
        construct(Pretraining, f"models.{model}.pretrain", study.pretraining(model))
    if study.distance_figures:
        construct(DistanceSettings, "distances", config["distances"])
    for recipe in study.recipes:
        _check_recipe(study, recipe)
    for suite in study.suites:
        _check_suite(study, suite)
    construct(SpeedSettings, "speed", config["speed"])
    if config["hub"] is not None and not ACCOUNT.fullmatch(config["hub"]):
        raise UserError(f"hub: {config['hub']!r} is no name of an account or an organisation")


def construct(cls: type[Settings], where: str, values: Mapping) -> None:
    """Construct a program's settings; a message begins with the place in the configuration."""
    try:
        cls.of(values)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{cls.WHAT}: ')}") from None


def check_name(kind: str, name: str, reserved: Iterable[str] = ()) -> None:
    """Raise a UserError for a name that cannot be a folder of the results."""
    if name in reserved or not NAME.fullmatch(name):
        others = f" and none of {', '.join(sorted(reserved))}" if reserved else ""
        raise UserError(
            f"{kind}.{name}: not a name that can be a folder here; use letters, digits, . _ -{others}"
        )


def _check_recipe(study: Study, recipe: str) -> None:
    where = f"recipes.{recipe}"
    for model in study.config["recipes"][recipe].get("models", {}):
        if model not in study.config["models"]:
            known = study.config["models"]
            raise MissingError(f"{where}.models: {model!r} is not known{did_you_mean(model, known)}")
    for model in study.models:
        settings = study.recipe(recipe, model)
        construct(Healing, where, settings)
        _check_words(f"{where}.targets", settings["targets"])


def _check_suite(study: Study, suite: str) -> None:
    where, settings = f"suites.{suite}", study.config["suites"][suite]
    if study.is_loss(suite):
        construct(LossSettings, f"{where}.loss", settings["loss"])
        return
    include, text = settings.get("include"), settings.get("text")
    construct(TaskSettings, where, settings | {"include": [include] if include else []})
    _check_words(f"{where}.tasks", settings["tasks"])
    if text and include:
        raise UserError(
            f"{where}: text takes the tasks of the generated text {text}, include those of a folder; give one"
        )
    if text:
        for task in settings["tasks"]:
            if task not in WORLD_TASKS:
                raise UserError(
                    f"{where}.tasks: the generated text {text} has no task {task!r}, it has "
                    f"{', '.join(WORLD_TASKS)}; for lm-eval's own, give a suite without text (text: null, if "
                    "a suite of this name in config.yaml has one: mappings are merged)"
                )
    if include:
        _check_include(f"{where}.include", Path(os.path.expanduser(include)))


def _check_words(where: str, words: Sequence[str]) -> None:
    """Several values of one option: none may look like an option itself."""
    for word in words:
        if word.startswith("-"):
            raise UserError(f"{where}: {word!r} begins with -, which a name here does not")


def _check_include(where: str, folder: Path) -> None:
    """A folder of one's own has definitions of tasks."""
    if not folder.is_dir():
        raise UserError(f"{where}: there is no folder {folder}")
    if not next((path for kind in ("yaml", "yml", "py") for path in folder.rglob(f"*.{kind}")), None):
        raise UserError(f"{where}: {folder} has no .yaml file, so it defines no task")
