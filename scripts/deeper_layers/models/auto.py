"""Which class of transformers has the language model of a config."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig


def model_class(config: PretrainedConfig) -> type:
    """AutoModelForCausalLM; for a language model inside one that reads pictures too, such as Llava,
    AutoModelForImageTextToText, which has its head, and the rest along with it."""
    inside = type(config) in AutoModelForImageTextToText._model_mapping
    alone = type(config) in AutoModelForCausalLM._model_mapping
    return AutoModelForImageTextToText if inside and not alone else AutoModelForCausalLM
