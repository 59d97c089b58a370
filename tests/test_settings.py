"""Settings have one home: schema, programs and classes of settings agree in every default and bound."""

from dataclasses import fields

import pytest
import yaml

from deeper_layers import settings
from deeper_layers.errors import UserError
from helpers.config import ROOT
from helpers.programs import parser_of

SCHEMA = yaml.safe_load((ROOT / "resources/config.schema.yaml").read_text())["properties"]
HEALING = SCHEMA["recipes"]["additionalProperties"]["properties"]
SUITE = SCHEMA["suites"]["additionalProperties"]["properties"]
SECTIONS = {  # class of settings -> its section of the schema, and the program whose options it makes
    settings.Pretraining: (
        SCHEMA["models"]["additionalProperties"]["properties"]["pretrain"]["properties"],
        "pretrain",
    ),
    settings.WorldSettings: (SCHEMA["texts"]["additionalProperties"]["properties"], "world"),
    settings.DistanceSettings: (SCHEMA["distances"]["properties"], "distances"),
    settings.Healing: (HEALING, "heal"),
    settings.TaskSettings: (SUITE, "evaluate"),
    settings.LossSettings: (SUITE["loss"]["properties"], "evaluate"),
    settings.SpeedSettings: (SCHEMA["speed"]["properties"], "speed"),
}


@pytest.mark.parametrize("cls", SECTIONS, ids=lambda cls: cls.__name__)
def test_schema_settings_and_command_line_agree(cls):
    section, name = SECTIONS[cls]
    options = {action.dest: action for action in parser_of(name)._actions}
    cls()  # the defaults go together
    for one in fields(cls):
        if not one.metadata.get("key", True):
            continue
        ours, theirs, option = one.metadata, section[one.name], options[one.name]
        where = f"{cls.__name__}.{one.name}"
        optional = one.default is None or one.default == ()
        default = list(one.default) if isinstance(one.default, tuple) else one.default
        if one.name != "batch" or default is not None:  # auto is None to the program
            assert theirs.get("default") == (None if optional else default), where
            assert (option.default or None) == (default or None), where
        theirs = theirs.get("items", theirs)
        theirs = next((t for t in theirs.get("oneOf", []) if t.get("type") == "integer"), theirs)
        assert theirs.get("minimum") == ours.get("least"), where
        assert theirs.get("exclusiveMinimum") == ours.get("above"), where
        assert theirs.get("maximum") == ours.get("most"), where
        assert theirs.get("exclusiveMaximum") == ours.get("below"), where
        assert set(theirs.get("enum", [])) == set(ours.get("choices", [])) == set(option.choices or []), where
        assert bool(option.help), where
    # Every key that a program is given is one of its options.
    others = {"text", "split", "control", "remove", "strategies", "models", "loss"}
    others |= {"source", "name", "revision", "field", "splits", "buffer", "suite"}
    assert set(section) - {one.name for one in fields(cls)} <= others, cls


@pytest.mark.parametrize(
    "cls, values, said",
    [
        (settings.Healing, {"warmup": 100, "steps": 100}, "healing: warmup is 100 of 100 steps"),
        (settings.Healing, {"rank": True}, "healing: rank is True, it must be a whole number"),
        (settings.Healing, {"learning_rate": float("nan")}, "learning_rate is nan, it must be finite"),
        (settings.Healing, {"clip": float("inf")}, "clip is inf, it must be finite"),
        (settings.Healing, {"alpha": 0}, "alpha is 0, it must be above 0"),
        (settings.Healing, {"targets": "up_proj"}, "targets is up_proj, it must be several values"),
        (settings.Healing, {"targets": []}, "targets is empty"),
        (settings.Healing, {"seed": -1}, "seed is -1, it must be at least 0"),
        (settings.Healing, {"steps": 2**31}, "steps is 2147483648, it must be at most 2147483647"),
        (
            settings.Pretraining,
            {"width": 97, "heads": 3},
            "width is 97, it must be an even multiple of the 3 heads",
        ),
        (
            settings.Pretraining,
            {"width": 99, "heads": 3},
            "width is 99, it must be an even multiple of the 3 heads",
        ),
        (settings.WorldSettings, {"people": 8}, "world: people is 8, it must be at least 10"),
        (settings.WorldSettings, {"people": 20_000}, "people is 20000, it must be at most 19200"),
        (settings.DistanceSettings, {"stream": True, "precision": "nf4"}, "distances: stream reads weights"),
        (settings.LossSettings, {"length": 1}, "loss: length is 1, it must be at least 2"),
        (settings.SpeedSettings, {"new": 1}, "speed: new is 1, it must be at least 2"),
        (settings.TaskSettings, {"limit": 0}, "tasks: limit is 0, it must be at least 1"),
    ],
)
def test_values_that_cannot_be_are_refused(cls, values, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")) as error:
        cls(**values)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError):
        cls.of(values | {"another": 1})


def test_a_micro_batch_divides_its_batch():
    settings.check_micro_batch(None, 16)
    settings.check_micro_batch(4, 16)
    for micro_batch in (3, 0, -2, 32):
        with pytest.raises(UserError, match=f"micro_batch {micro_batch} does not divide batch 16"):
            settings.check_micro_batch(micro_batch, 16)


def test_a_world_of_the_largest_number_of_people_there_are_names_for_can_be_made():
    from deeper_layers.data.world import World

    most = next(one for one in fields(settings.WorldSettings) if one.name == "people").metadata["most"]
    assert len(World(0, most).people) == most
    with pytest.raises(UserError, match=f"there are names for {most} people only"):
        World(0, most + 1)
