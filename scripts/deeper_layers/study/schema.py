"""Whether a configuration is what the classes of its settings say; if not, one line in words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping

import jsonschema

from ..errors import UserError
from ..settings.base import LARGEST
from ..settings.json_schema import schema

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
WORDS = {  # types of the schema -> how to write one
    "array": "a list, as in [{}]",
    "object": "a mapping, one `key: value` a line, indented",
    "string": "a text; put it in quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


class MissingError(UserError):
    """Something that the configuration names or needs and does not define."""


def _is_integer(_: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# jsonschema takes 4.0 for an integer; the programs do not.
Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def check_schema(config: dict) -> None:
    """Raise a UserError of one line for the most telling fault of ``config``, if there is one."""
    _check_words(config)
    _check_against(config, schema())
    _check_numbers(config)
    # Values of a recipe for single models are of the recipe's own kind, but get no defaults.
    recipe_schema = schema()["properties"]["recipes"]["additionalProperties"] | {"required": []}
    for name, recipe in config.get("recipes", {}).items():
        for model, values in recipe.get("models", {}).items():
            _check_against(values, recipe_schema, ("recipes", name, "models", model))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known)) or 'none'}"


def _check_words(value: object, path: tuple = ()) -> None:
    """Keys and texts become names, paths and words of a command line."""
    where = ".".join(map(str, path)) or "the configuration"
    if isinstance(value, Mapping):
        for key, below in value.items():
            if not isinstance(key, str):
                raise UserError(f"{where}: the key {key} is no text; put it in quotes, as in '{key}'")
            _check_words(key, path)
            _check_words(below, (*path, key))
    elif isinstance(value, list):
        for item in value:
            _check_words(item, path)
    elif isinstance(value, str) and UNPRINTABLE.search(value):
        raise UserError(
            f"{where}: {value!r} has a character that cannot be printed, such as a line break; write it in "
            "one line"
        )
    elif isinstance(value, str) and (
        len(value) > 4000 or any(len(part.encode()) > 255 for part in value.split("/"))
    ):
        raise UserError(f"{where}: {_short(value)} is too long for a name or a path")


def _check_numbers(value: object, path: tuple = ()) -> None:
    """Numbers that the schema takes and no program does."""
    where = ".".join(map(str, path))
    if isinstance(value, Mapping):
        for key, below in value.items():
            _check_numbers(below, (*path, key))
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is not a finite number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{where}: {_short(value)} is too large; write at most {LARGEST}")


def _check_against(value: object, expected: Mapping, path: tuple = ()) -> None:
    error = jsonschema.exceptions.best_match(Validator(expected).iter_errors(value))
    if error is None:
        return
    while error.context and error.validator in ("oneOf", "anyOf"):  # best_match stops at ties
        error = min(error.context, key=lambda one: (one.validator != "const", -len(one.absolute_path)))
        if error.validator == "const":
            error = error.parent
            break
    where = ".".join(map(str, [*path, *error.absolute_path])) or "the configuration"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        wrong = next(key for key in error.instance if key not in known)
        raise UserError(f"{where}: there is no key {wrong!r}{did_you_mean(wrong, known)}")
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        raise MissingError(f"{where}: the key {missing} is missing")
    raise UserError(f"{where}: {_in_words(error)}")


def _in_words(error: jsonschema.ValidationError) -> str:
    """A fault of a single value, and what to write instead."""
    value, wanted = error.instance, error.validator_value
    shown = _short(value)
    if error.validator == "type":
        return _wrong_type(value, [wanted] if isinstance(wanted, str) else wanted)
    if error.validator == "oneOf":
        choices = [one["const"] if "const" in one else _kind(one) for one in wanted]
        return f"{shown} is neither {' nor '.join(choices)}"
    if error.validator == "enum":
        return f"{shown} is not one of {', '.join('null' if one is None else str(one) for one in wanted)}"
    words = {
        "minimum": f"{shown} is too small; write at least {wanted}",
        "maximum": f"{shown} is too large; write at most {wanted}",
        "exclusiveMinimum": f"{shown} is too small; write more than {wanted}",
        "exclusiveMaximum": f"{shown} is too large; write less than {wanted}",
        "minItems": "the list is empty; name at least one",
        "minLength": "the text is empty",
        "uniqueItems": f"{shown} names something twice",
    }
    return words.get(error.validator, error.message)


def _kind(schema: Mapping) -> str:
    if schema["type"] == "array":
        return "a list of whole numbers, as in [1, 2]"
    return WORDS[schema["type"]].split(";")[0]


def _wrong_type(value: object, types: list[str]) -> str:
    """'mine' where a list is wanted: 'mine' is not a list; write a list, as in [mine]."""
    wanted = next(kind for kind in types if kind != "null")
    shown = _short(value)
    if wanted == "number" and isinstance(value, str):
        if number := _as_number(value):
            return f"{shown} is a text to YAML; write {number}"
        return f"{shown} is not a number"
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return f"{shown} is not a whole number; write {int(value)}"
    if wanted == "integer" and isinstance(value, str) and value.strip().isdecimal():
        return f"{shown} is a text; write {int(value)}, without quotes"
    if value is None:
        return f"nothing is written here; write {WORDS[wanted].format('...')}"
    told = shown if isinstance(value, int | float) else value if isinstance(value, str) else "..."
    how = WORDS[wanted].format(told)
    if wanted == "string" and isinstance(value, bool | int | float):
        how = f"a text, in quotes: '{shown}'"
    return f"{shown} is not {WORDS[wanted].split(',')[0].split(';')[0]}; write {how}"


def _as_number(text: str) -> str | None:
    """A number as YAML wants it: '3e-4' -> '3.0e-4'."""
    match = re.fullmatch(r"\s*([+-]?\d+)(?:\.(\d*))?(?:[eE]([+-]?)(\d+))?\s*", text)
    if not match:
        return None
    whole, part, sign, power = match.groups()
    return f"{whole}.{part or 0}" + (f"e{sign or '+'}{power}" if power else "")


def _short(value: object) -> str:
    """A value as a message shows it: in one line, and not pages of it."""
    try:
        text = repr(value)
    except ValueError:  # thousands of digits
        return "the number"
    return text if len(text) <= 60 else f"{text[:57]}..."
