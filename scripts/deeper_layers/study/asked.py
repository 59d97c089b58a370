"""What a study asks of its models, held against what their config.json says (``limits``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..checkpoints.limits import check
from ..checkpoints.quantised import Asked
from ..settings.suites import held_out
from .evidence import sections

if TYPE_CHECKING:
    from .study import Study


def asked_by(study: Study, model: str) -> Asked:
    """What a study asks of one of its models, by the keys of the configuration."""
    config, lengths, precisions, streamed = study.config, {}, {}, []

    def asks(where: str, settings: Mapping) -> None:
        key = "window" if "window" in settings else "length"
        lengths[f"{where}.{key}"] = settings.get(key, 0)
        if "precision" in settings:
            precisions[f"{where}.precision"] = settings["precision"]
        if settings.get("stream"):
            streamed.append(f"{where}.stream")

    for section in sections(study.evidence):
        asks(section, config[section])
    for recipe in study.recipes:
        asks(f"recipes.{recipe}", study.method(recipe).settings(study.recipe(recipe, model)))
    for suite in study.suites:
        kind, settings = held_out(study.suite(suite)) or ("", study.suite(suite))
        asks(f"suites.{suite}.{kind}".rstrip("."), settings)
    if config["study"]["speed"]:
        asks("speed", config["speed"])
        lengths["speed.prompt + speed.new"] = config["speed"]["prompt"] + config["speed"]["new"]
    return Asked(lengths, precisions, streamed)


def check_study(study: Study, model: str) -> list[str]:
    """``check`` of a model whose config.json is at hand, or that the study trains itself."""
    source = study.model(model)
    if source.kind == "pretrain":
        trained = {"model_type": "llama", "max_position_embeddings": source.pretraining["length"]}
        return check(trained, model, asked_by(study, model))
    folder = source.id if source.kind == "folder" else None
    return check(source.config, model, asked_by(study, model), folder) if source.config else []
