"""Settings have one home: what the classes say is what programs, schema and Snakefile say and refuse."""

import shlex
from contextlib import redirect_stderr
from dataclasses import fields
from io import StringIO

import pytest
import yaml
from snakemake.utils import validate

from deeper_layers.errors import UserError
from deeper_layers.runtime import cli
from deeper_layers.settings.base import LARGEST, REQUIRED, setting
from deeper_layers.settings.distances import DistanceSettings
from deeper_layers.settings.healing import HealedCuts, Healing
from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.settings.model import Pretraining
from deeper_layers.settings.speed import SpeedSettings
from deeper_layers.settings.study import Configuration
from deeper_layers.settings.suites import LossSettings, TaskSettings
from deeper_layers.settings.texts import SampleSettings, WorldSettings
from deeper_layers.study.checks import check
from deeper_layers.study.options import command_line
from deeper_layers.study.schema import check_schema
from deeper_layers.study.study import Study
from helpers.config import ROOT, changed, full_config
from helpers.programs import parser_of

PROGRAMS = {  # class of settings -> where its values are in the default configuration, and its program
    Pretraining: ("models__embedded__pretrain", "pretrain"),
    WorldSettings: ("texts__world", "world"),
    DistanceSettings: ("distances", "distances"),
    Healing: ("recipes__healed", "heal"),
    TaskSettings: ("suites__quiz", "evaluate"),
    LossSettings: ("suites__loss__loss", "evaluate"),
    SpeedSettings: ("speed", "measure_speed"),
}
PATHS = {  # what the programs need besides
    "pretrain": "--text x --out x",
    "world": "--out x",
    "distances": "--checkpoint x --tokens x --out x",
    "heal": "--checkpoint x --tokens x --state x --out x",
    "evaluate": "--checkpoint x --suite x --out x",
    "measure_speed": "--checkpoint x --blocks full --out x",
}


@pytest.mark.parametrize("cls", [*PROGRAMS, SampleSettings], ids=lambda cls: cls.__name__)
def test_a_program_has_every_setting_as_an_option(cls):
    program = PROGRAMS.get(cls, ("", "sample"))[1]
    actions = {action.dest: action for action in parser_of(program)._actions}
    for one in fields(cls):
        option = actions[one.name]
        assert option.required == (one.default is REQUIRED), one.name
        default = None if option.required else list(one.default) if one.metadata["several"] else one.default
        assert (option.default or None) == (default or None), one.name
        assert option.help.startswith(one.metadata["help"][:20]), one.name
        assert set(option.choices or []) == set(one.metadata.get("choices", []))


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml"))], ids=str)
def test_defaults_are_filled_in_as_snakemake_does_it_from_the_file(path):
    config, theirs = (yaml.safe_load(path.read_text()) for _ in range(2))
    for one in (config, theirs):
        one.setdefault("texts", {})
        one.setdefault("suites", {})
        one.setdefault("models", {})
    validate(theirs, str(ROOT / "resources/config.schema.yaml"))
    for name, recipe in config.get("recipes", {}).items():  # another method has defaults of its own
        if recipe.get("method", HealedCuts.method) != HealedCuts.method:
            for key in {one.name for one in fields(Healing)} - set(recipe):
                theirs["recipes"][name].pop(key, None)
    assert with_defaults(config) == theirs


def test_settings_that_determine_no_result_are_these():
    def tuning(cls):
        for one in fields(cls):
            if settings := one.metadata.get("section"):
                yield from () if settings is dict else (f"{one.name}.{name}" for name in tuning(settings))
            elif not one.metadata["determines"]:
                yield one.name

    assert sorted(tuning(Configuration)) == sorted(
        [
            "card",
            "study.chunks",
            "models.gpus",
            "losses.batch",
            *(f"distances.{name}" for name in ("batch_tokens", "spill", "stream")),
            *(f"recipes.{name}" for name in ("batch_tokens", "checkpointing", "save_every")),
            "texts.batch",
            "suites.batch",
            "suites.metric",
            *(f"suites.loss.{name}" for name in ("batch", "spill", "stream")),
            *(f"suites.perplexity.{name}" for name in ("batch", "spill", "stream")),
        ]
    )


# What a program refuses is refused while Snakemake reads the configuration


def outside(one) -> list:
    """Values of a setting just outside of what it may be."""
    bounds, kind = one.metadata, one.metadata["kind"]
    values = (
        [LARGEST + 1, "x", 2.5]
        if kind is int
        else [float("nan"), float("inf"), "x"]
        if kind is float
        else [""]
    )
    step = 1 if kind is int else 1e-9
    values += [bounds["least"] - step] if "least" in bounds else []
    values += [bounds["most"] + step] if "most" in bounds else []
    values += [bounds[name] for name in ("above", "below") if name in bounds]
    values = ["other", ""] if "choices" in bounds else values
    return [[value] for value in values] if isinstance(one.default, tuple) else values


def inside(one) -> list:
    """The least and the largest value of a setting by itself."""
    values = [one.metadata[name] for name in ("least", "most") if name in one.metadata]
    return [*values, LARGEST] if one.metadata["kind"] is int and len(values) < 2 else values


def study_fault(where: str, value) -> str | None:
    """What the Snakefile refuses the default study with another value with, if it does."""
    try:
        config = changed(**{where: value})
        check_schema(config)
        check(Study(config))
    except UserError as error:
        return str(error)
    return None


def program_fault(cls, where: str, name: str, value) -> str | None:
    """What the program refuses the same value with, given by the command line, if it does."""
    section = full_config()
    for key in where.split("__"):
        section = section[key]
    section = {**section, "include": [section["include"]] if section.get("include") else []}
    values = {one.name: section[one.name] for one in fields(cls) if one.name in section} | {name: value}
    program, said = PROGRAMS[cls][1], StringIO()
    try:
        with redirect_stderr(said):
            arguments = parser_of(program).parse_args(shlex.split(f"{PATHS[program]} {command_line(values)}"))
        arguments.settings = cls
        cli.read_settings(arguments)
    except SystemExit:
        return said.getvalue().splitlines()[-1]
    except UserError as error:
        return str(error)
    return None


SETTINGS = [
    pytest.param(cls, where, one, id=f"{cls.__name__}.{one.name}")
    for cls, (where, _) in PROGRAMS.items()
    for one in fields(cls)
    if one.metadata["key"] and one.metadata["kind"] is not bool
]


@pytest.mark.parametrize("cls, where, one", SETTINGS)
def test_a_value_outside_its_bounds_is_refused_by_the_program_and_before_it(cls, where, one):
    for value in outside(one):
        written = value[0] if one.name == "include" else value  # a folder in the configuration
        program, study = (
            program_fault(cls, where, one.name, value),
            study_fault(f"{where}__{one.name}", written),
        )
        assert program and (one.name in program or one.name.replace("_", "-") in program), value
        assert study and one.name in study, value
        assert "\n" not in study


@pytest.mark.parametrize("cls, where, one", SETTINGS)
def test_what_a_program_refuses_of_settings_never_passes_the_snakefile(cls, where, one):
    for value in inside(one):
        if program := program_fault(
            cls, where, one.name, value
        ):  # with another setting it does not go together
            study = study_fault(f"{where}__{one.name}", value)
            assert study and program.partition(": ")[2] in study, (value, program)


@pytest.mark.parametrize(
    "cls, values, said",
    [
        (Healing, {"warmup": 100, "steps": 100}, "healing: warmup is 100 of 100 steps"),
        (Healing, {"rank": True}, "healing: rank is True, it must be a whole number"),
        (Healing, {"learning_rate": float("nan")}, "learning_rate is nan, it must be finite"),
        (Healing, {"clip": float("inf")}, "clip is inf, it must be finite"),
        (Healing, {"alpha": 0}, "alpha is 0, it must be above 0"),
        (Healing, {"targets": "up_proj"}, "targets is up_proj, it must be several values"),
        (Healing, {"targets": []}, "targets is empty"),
        (Healing, {"seed": -1}, "seed is -1, it must be at least 0"),
        (Healing, {"steps": 2**31}, "steps is 2147483648, it must be at most 2147483647"),
        (Healing, {"batch_tokens": 0}, "healing: batch_tokens is 0, it must be at least 1"),
        (Healing, {"interface": -1.0}, "healing: interface is -1.0, it must be at least 0"),
        (Pretraining, {"width": 97, "heads": 3}, "width is 97, it must be an even multiple of the 3 heads"),
        (Pretraining, {"width": 99, "heads": 3}, "width is 99, it must be an even multiple of the 3 heads"),
        (WorldSettings, {"people": 8}, "world: people is 8, it must be at least 10"),
        (WorldSettings, {"people": 20_000}, "people is 20000, it must be at most 19200"),
        (DistanceSettings, {"stream": True, "precision": "nf4"}, "distances: stream reads weights"),
        (LossSettings, {"length": 1}, "loss: length is 1, it must be at least 2"),
        (SpeedSettings, {"new": 1}, "speed: new is 1, it must be at least 2"),
        (TaskSettings, {"limit": 0}, "tasks: limit is 0, it must be at least 1"),
    ],
)
def test_values_that_cannot_be_are_refused(cls, values, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")) as error:
        cls(**values)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError):
        cls.of(values | {"another": 1})


def test_a_flag_that_could_not_be_turned_off_is_refused():
    with pytest.raises(ValueError, match="a flag is off by default"):
        setting(bool, True, "Normalise.")


def test_a_word_stands_for_none():
    assert LossSettings.of({"batch": "auto"}).batch is None and LossSettings.of({"batch": 3}).batch == 3


def test_a_world_of_the_largest_number_of_people_there_are_names_for_can_be_made():
    from deeper_layers.data.world import World

    most = next(one for one in fields(WorldSettings) if one.name == "people").metadata["most"]
    assert len(World(0, most).people) == most
    with pytest.raises(UserError, match=f"there are names for {most} people only"):
        World(0, most + 1)
