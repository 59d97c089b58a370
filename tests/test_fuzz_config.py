"""Random edits of the shipped studies: each is refused in one line, or every program takes what it is given.

The path is that of the Snakefile: merged over config.yaml, checked, defaults filled in, ``Study``, the
options of every rule, and the plan. Seeds are fixed, so a fault that is found is found again.
"""

import copy
import datetime
import random
import re
import shlex
from contextlib import redirect_stderr
from io import StringIO

import pytest
import yaml
from snakemake.utils import update_config

from deeper_layers.data.local_source import SPLITS
from deeper_layers.errors import UserError
from deeper_layers.settings.distances import DistanceSettings
from deeper_layers.settings.model import Pretraining
from deeper_layers.settings.speed import SpeedSettings
from deeper_layers.settings.suites import LossSettings, TaskSettings
from deeper_layers.settings.texts import WorldSettings
from deeper_layers.study import options
from deeper_layers.study.overlay import effective
from deeper_layers.study.plan import plan
from deeper_layers.study.plan_page import markdown
from deeper_layers.study.study import Study
from helpers.config import ROOT, cache, checked
from helpers.programs import parser_of

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
STUDIES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "studies").glob("*.yaml"))}
EDITS, CHUNKS = 2000, 8
GARBAGE = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 100, 10**9, 2**31 - 1, 2**31, 10**30, -(10**30), 10**1000),
    *(0.0, -0.0, 0.5, 1.0, 3.0e-4, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "a",
        "-x",
        "--help",
        "-1",
        "~",
        "~/x",
        "$(ls)",
        "`id`; rm",
        "it's",
        "ü",
        "\U0001f600",
        "\u202e",
    ),
    *(
        "two\nlines",
        "\x00",
        "\ud800",
        "3e-4",
        "1_000",
        "auto",
        "all",
        "full",
        "null",
        "a/b",
        "../x",
        "x" * 5000,
    ),
    *("pretrain", "generate", "world", "c4", "embedded", "healed", "quiz", "loss", "published", "similarity"),
    *(
        [],
        [None],
        [0],
        [1],
        [1, 1],
        [1.0],
        [True],
        ["a"],
        ["-x"],
        [""],
        ["ü b"],
        [[]],
        [{}],
        ["deepest"],
        [10**9],
    ),
    *({}, {"a": 1}, {1: 2}, {None: 3}, {"text": "world"}, {"text": "c4", "steps": 0}, {"": ""}),
    *({"source": "pretrain"}, {"loss": {"text": "world"}}, {"tasks": ["mmlu"]}, datetime.date(2024, 1, 1)),
]


def places(value, path=()):
    """Every key of a nested mapping, as a path."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield (*path, key)
            yield from places(below, (*path, key))


def alike(rng: random.Random, value, texts: list[str]):
    """Another value of the same kind, as one who varies a study writes."""
    if isinstance(value, bool) or value is None:
        return rng.choice([True, False, None])
    if isinstance(value, int):
        return rng.choice([rng.randint(0, 20), value * 2, value + 1, value // 2, 8 * rng.randint(1, 300)])
    if isinstance(value, float):
        return value * 10 ** rng.randint(-3, 2)
    if isinstance(value, list):
        return rng.sample(value, rng.randint(0, len(value)))
    if isinstance(value, str):
        return rng.choice([value, value, *texts])
    return dict(rng.sample(sorted(value.items(), key=str), rng.randint(0, len(value))))


def edited(rng: random.Random, study: dict) -> dict:
    """A study with one to four random edits."""
    study = copy.deepcopy(study)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        keys = sorted(places(study), key=str)
        if not keys:
            break
        *parents, key = rng.choice(keys)
        at = study
        for parent in parents:
            at = at[parent]
        if rng.random() < 0.6:
            texts = [key for key in keys[-1] if isinstance(key, str)]
            at[key] = alike(rng, at[key], [*texts, "world", "c4", "fp32", "nf4", "deepest"])
            continue
        kind = rng.choice(["value", "value", "value", "number", "remove", "rename", "add", "swap", "nest"])
        if kind == "value":
            at[key] = copy.deepcopy(rng.choice(GARBAGE))
        elif kind == "number":
            at[key] = rng.choice([1, -1]) * rng.choice(
                [rng.randint(0, 300), rng.random(), 10 ** rng.randint(0, 40)]
            )
        elif kind == "remove":
            del at[key]
        elif kind == "rename":
            at[rng.choice(["x", "", "pruned", "texts", "ü", f"{key}s", 5, None])] = at.pop(key)
        elif kind == "add":
            at[rng.choice(["x", "text", "batch", "stream", "include", "remove", 1])] = rng.choice(GARBAGE)
        elif kind == "swap":
            *parents, other = rng.choice(keys)
            there = study
            for parent in parents:
                there = there.get(parent, {}) if isinstance(there, dict) else {}
            if isinstance(there, dict) and other in there:
                at[key] = copy.deepcopy(there[other])
        else:
            for _ in range(rng.choice([1, 30])):
                at[key] = rng.choice([{"a": at[key]}, [at[key]]])
    return study


def read(own: dict) -> Study:
    """The study as the Snakefile reads it."""
    merged = copy.deepcopy(DEFAULT)
    update_config(merged, copy.deepcopy(own))
    return checked(effective(merged, own, "mine"))


def commands(study: Study):
    """(program, its options, its class of settings) of every job of a study."""
    out = "--out x"
    for text in study.generated_texts:
        yield "world", f"{options.world(study, text)} {out}", WorldSettings
    for text in study.sampled_texts:
        for split in SPLITS:
            yield "sample", f"{options.sample(study, text, split)} {out}", None
    for model in study.models:
        if study.model(model).kind == "pretrain":
            yield "pretrain", f"{options.pretrain(study, model)} --text x {out}", Pretraining
        if study.model(model).kind == "hub":
            yield "download", f"{options.download(study, model)} {out}", None
        converted = model in study.models_to_convert("qwen")
        adopt = options.convert_qwen(study, model) if converted else options.adopt(study, model)
        made = "" if study.model(model).kind == "folder" else " --download x"
        program = "convert_qwen" if converted else "adopt"
        yield program, f"{adopt}{made} --model {model} {out}", None
        yield "cut", f"{options.trust(study, model)} --checkpoint x --block full {out}", None
        yield "blocks", f"{options.blocks(study, model)} --checkpoint x {out}", None
        if "distances" in study.evidence:
            words = f"{options.distances(study, model)} {options.distances_tuning(study)}"
            yield "distances", f"{words} --checkpoint x --tokens x {out}", DistanceSettings
        for recipe in study.recipes:
            words = f"{options.heal(study, recipe, model)} {options.heal_tuning(study, recipe, model)}"
            yield "heal", f"{words} --checkpoint x --tokens x --state x {out}", study.method(recipe).SETTINGS
        for suite in study.suites:
            words = f"{options.evaluate(study, suite, model)} {options.evaluate_tuning(study, suite)}"
            words += f" --checkpoint x {out}"
            words += " --tokens x" * study.is_loss(suite)
            yield "evaluate", words, LossSettings if study.is_loss(suite) else TaskSettings
        words = f"{options.measure_speed(study, model)} --checkpoint x --blocks full {out}"
        yield "measure_speed", words, SpeedSettings


def taken(study: Study) -> None:
    """Every program parses what it would be given, and its own checks accept it."""
    for name, words, cls in commands(study):
        said = StringIO()
        try:
            with redirect_stderr(said):
                method = re.findall(r"--method \S+", words)
                arguments = parser_of(name, *" ".join(method).split()).parse_args(shlex.split(words))
        except SystemExit:
            raise AssertionError(f"{name} {words}: {said.getvalue().splitlines()[-1]}") from None
        if cls:
            cls.of(vars(arguments))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A cache with the configuration of some of the studies' models; the others could be asked for."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("quick", "modern"):
        study = copy.deepcopy(STUDIES[name])
        cache(folder, study)
    return folder


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_an_edited_study_is_refused_in_one_line_or_its_programs_take_it(chunk, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rng, accepted = random.Random(chunk), 0
    for number in range(EDITS // CHUNKS):
        own = edited(rng, rng.choice([DEFAULT, *STUDIES.values()]))
        try:
            study = read(own)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (chunk, number, str(error))
            continue
        except Exception as error:
            raise AssertionError(f"edit {number} of {chunk}: {own}") from error
        accepted += 1
        try:
            taken(study)
            if accepted % 10 == 0:
                markdown(plan(study))
        except Exception as error:
            raise AssertionError(f"edit {number} of {chunk}: {own}") from error
    assert EDITS // CHUNKS * 0.1 < accepted < EDITS // CHUNKS * 0.9  # both sides are tried
