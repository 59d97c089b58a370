"""Are the texts of a study such as it can be read from? Checked while the Snakefile is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.texts import check_text, text_fingerprint
from ..errors import UserError
from ..runtime.files import read_json
from .schema import MissingError, did_you_mean
from .study import Study


def check_texts(study: Study) -> None:
    """What the texts come from, and what those of a model begin with."""
    for name in study.models_from("pretrain"):
        if (text := study.model(name).pretraining["text"]) in study.continued_texts:
            raise UserError(f"models.{name}.pretrain.text: {text} is written by the model; name another")
    for text in study.config["texts"]:
        _check_source(study, text)
        if text in study.continued_texts:
            _check_prompts(study, text)


def check_text_of(study: Study, where: str, reader: Mapping[str, Any], count: str | None = None) -> None:
    """The text must be known and have as many documents as the setting ``count`` asks for."""
    text, texts = reader.get("text"), study.config["texts"]
    if text is not None and text not in texts:
        raise MissingError(f"{where}.text: {text!r} is not known{did_you_mean(text, texts)}")
    if count and (reader.get(count) or 0) > texts[text][reader["split"]]:
        raise UserError(
            f"{where}.{count}: {reader[count]} documents are more than the "
            f"{texts[text][reader['split']]} of texts.{text}.{reader['split']}; raise that, or ask for fewer"
        )


def _check_prompts(study: Study, text: str) -> None:
    """The text that a text of the model begins with."""
    settings, texts = study.config["texts"][text], study.config["texts"]
    prompts = settings["prompts"]
    if prompts not in texts or prompts in study.continued_texts:
        known = [name for name in texts if name not in study.continued_texts]
        raise UserError(
            f"texts.{text}.prompts: {prompts!r} is no text to go on with; name one of {', '.join(known)}"
        )
    for split in study.documents(text):
        if settings[split] > texts[prompts][split]:
            raise UserError(
                f"texts.{text}.{split}: {settings[split]} documents are more than the "
                f"{texts[prompts][split]} of texts.{prompts}.{split}; raise that, or ask for fewer"
            )


def _check_source(study: Study, text: str) -> None:
    """What a text that is read is sampled from. If all was sampled before it need not be here, as on the
    nodes of a cluster."""
    settings, read = study.config["texts"][text], study.documents(text)
    try:
        if read:
            check_text(settings, read)
    except UserError as error:
        summaries = [Path(study.paths.text(text, split, "json")) for split in read]
        sampled = all(s.is_file() and read_json(s).get("source") == settings["source"] for s in summaries)
        if text_fingerprint(settings["source"]) or not sampled:
            raise UserError(f"texts.{text}: {error}") from None
