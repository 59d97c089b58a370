"""Settings of a study as options of the programs: what to compute, not where its files are.

Those that determine results are ``params`` of a rule: Snakemake compares them, and a change reruns the stage.
Each is one string, so that a reordered configuration reruns nothing. Those that only say how it is computed
(``determines=False`` in ``settings``) are the parameter ``tuning``. Its function takes the inputs too, so
Snakemake counts it as derived from them and does not compare it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ..data.texts import sample_settings
from ..healing.methods import DEFAULT
from ..settings.base import Settings
from ..settings.distances import DistanceSettings
from ..settings.losses import ChoiceLossSettings
from ..settings.suites import LossSettings, PerplexitySettings, TaskSettings, computed, held_out
from ..settings.texts import ContinuationSettings
from .evidence import kind_of, protected, sections, step
from .figures import prompts
from .sources import ResolvedModel, expanded
from .study import Study

HELD_OUT_SETTINGS: dict[str, type[Settings]] = {"loss": LossSettings, "perplexity": PerplexitySettings}


def command_line(settings: Mapping[str, Any]) -> str:
    """Settings as options, sorted and quoted for a shell: {"rank": 2, "batch": 16} -> "--batch 16 --rank 2".
    What is None, False or an empty list is left out."""
    words = []
    for key, value in sorted(settings.items()):
        if value is None or value is False or value in ([], ()):
            continue
        words.append("--" + key.replace("_", "-"))
        if isinstance(value, str) and value.startswith("-"):  # argparse would take it for an option
            words[-1] += f"={value}"
        elif value is not True:
            words += [str(v) for v in (value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)


def _without(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _determining(settings: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that determine results; the text that is read comes as an input."""
    return _without(values, *settings.tuning(), "text", "split")


def _tuning(settings: type[Settings], values: Mapping[str, Any]) -> str:
    """Those of ``values`` that determine no result."""
    chosen = {key: values[key] for key in settings.tuning() if key in values}
    if chosen.get("spill"):
        chosen["spill"] = expanded(chosen["spill"])
    return command_line(chosen)


def world(study: Study, text: str) -> str:
    names = ("seed", "people", "train", "calibration", "validation", "questions")
    return command_line({name: study.config["texts"][text][name] for name in names})


def sample(study: Study, text: str, split: str) -> str:
    """Of a text from a data set or from local files: what determines the documents of one split."""
    return command_line(sample_settings(study.config["texts"][text], split, study.documents(text)))


def continue_text(study: Study, text: str, split: str, model: str) -> str:
    """Of a text that the uncut model writes itself: how, and how much of a split."""
    settings = study.config["texts"][text]
    return command_line(
        ContinuationSettings.of(settings).determining()
        | {"documents": settings[split]}
        | study.model(model).trust
    )


def continue_text_tuning(study: Study, text: str) -> str:
    return _tuning(ContinuationSettings, study.config["texts"][text])


def pretrain(study: Study, model: str) -> str:
    return command_line(_without(study.model(model).pretraining, "text"))


def download(study: Study, model: str) -> str:
    source = study.model(model)
    return command_line({"id": source.id, "revision": source.revision} | source.trust)


def adopt(study: Study, model: str) -> str:
    """A folder of the user's is named here; what the study trains or fetches itself is an input."""
    source = study.model(model)
    return command_line(_folder(source) | source.trust | {"reshard": source.settings.get("reshard")})


def convert_qwen(study: Study, model: str) -> str:
    """The same of a layout that code of ours reads, not the model's own."""
    return command_line(_folder(study.model(model)))


def convert_gguf(study: Study, model: str) -> str:
    source = study.model(model)
    return command_line({"source": source.id, "dtype": source.settings["dtype"]})


def cut_gguf(study: Study, model: str, block: str) -> str:
    return command_line({"source": study.model(model).id, "block": block})


def _folder(source: ResolvedModel) -> dict[str, Any]:
    return {"source": source.id if source.kind == "folder" else None}


def trust(study: Study, model: str) -> str:
    return command_line(study.model(model).trust)


def distances(study: Study, model: str) -> str:
    settings = _determining(DistanceSettings, study.config["distances"])
    return command_line(settings | study.model(model).trust)


def distances_tuning(study: Study) -> str:
    return _tuning(DistanceSettings, study.config["distances"])


def iterative(study: Study, model: str, evidence: str) -> str:
    settings = _determining(DistanceSettings, study.config["distances"])
    searched = {"protect": protected(evidence), "step": step(evidence)} | _remove(study, model)
    return command_line(settings | searched | study.model(model).trust)


def iterative_tuning(study: Study) -> str:
    """It is in memory, whatever the distances are."""
    return command_line({"batch_tokens": study.config["distances"].get("batch_tokens")})


def losses(study: Study, model: str, evidence: str) -> str:
    kind = kind_of(evidence)
    settings = _determining(ChoiceLossSettings, study.config["losses"]) | {"kind": kind}
    remove = {} if kind == "layer_losses" else _remove(study, model)
    return command_line(settings | remove | {"protect": protected(evidence)} | study.model(model).trust)


def losses_tuning(study: Study) -> str:
    return _tuning(ChoiceLossSettings, study.config["losses"])


def _remove(study: Study, model: str) -> dict[str, Any]:
    """Without ``--remove`` all numbers of layers, with a bare one none."""
    asked = study.config["study"]["remove"]
    return {} if asked == "all" else {"remove": study.removals(model) or True}


def blocks(study: Study, model: str) -> str:
    own = {
        name: settings.determining()
        for name, settings in study.rules.items()
        if name in study.config["strategies"]
    }
    rules = {"rules": json.dumps(own, sort_keys=True)} if own else {}
    return command_line({"strategies": study.strategies} | rules | _remove(study, model))


def heal(study: Study, recipe: str, model: str) -> str:
    """The method is named where it is another than the default."""
    values, method = study.recipe(recipe, model), study.method(recipe)
    named = {} if values["method"] == DEFAULT else {"method": values["method"]}
    # Defaults of a method's own are written out: a changed one then reruns what it healed.
    settings = method.SETTINGS.of(method.settings(values)).determining()
    return command_line(settings | named | study.model(model).trust)


def heal_tuning(study: Study, recipe: str, model: str) -> str:
    method = study.method(recipe)
    return _tuning(method.SETTINGS, method.settings(study.recipe(recipe, model)))


def fetch_tasks(study: Study, suite: str) -> str:
    settings = study.suite(suite)
    include = settings.get("include")
    return command_line({"tasks": settings["tasks"], "include": include and expanded(include)})


def evaluate(study: Study, suite: str, model: str) -> str:
    settings = study.suite(suite)
    if reader := held_out(settings):
        kind, section = reader
        settings = _determining(HELD_OUT_SETTINGS[kind], section) | {kind: True}
    else:
        include = settings.get("include")
        settings = _determining(TaskSettings, settings) | {"include": include and expanded(include)}
    return command_line(settings | {"suite": suite} | study.model(model).trust)


def evaluate_tuning(study: Study, suite: str) -> str:
    settings = study.suite(suite)
    if reader := held_out(settings):
        return _tuning(HELD_OUT_SETTINGS[reader[0]], reader[1])
    return _tuning(TaskSettings, settings)


def suite_metrics(study: Study) -> dict[str, str]:
    """Of each suite that names one, the metric that stands for its tasks."""
    metrics = {suite: study.suite(suite).get("metric") for suite in study.suites}
    return {suite: metric for suite, metric in metrics.items() if metric}


def card(study: Study) -> str:
    return command_line({"metrics": [f"{suite}={metric}" for suite, metric in suite_metrics(study).items()]})


def check(study: Study) -> str:
    """What the machine is checked for: the precisions that the study computes in."""
    pairs = [(recipe, model) for recipe in study.recipes for model in study.models]
    recipes = [study.method(recipe).settings(study.recipe(recipe, model)) for recipe, model in pairs]
    suites = [study.suite(suite) for suite in study.suites]
    evidence = [study.config[section] for section in sections(study.evidence)]
    settings = [*evidence, *recipes, *map(computed, suites)]
    precisions = sorted({one["precision"] for one in settings if "precision" in one})
    return command_line({"precisions": precisions})


def measure_speed(study: Study, model: str) -> str:
    return command_line(study.config["speed"] | study.model(model).trust)


def figure(study: Study, name: str) -> str:
    """What a figure of one model is told besides."""
    return command_line({"metrics": prompts(study)}) if name == "prompts" else ""
