"""A setting, and a class of settings that are checked one by one and together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from ..errors import UserError

REQUIRED: Any = MISSING
LARGEST = 2**31 - 1  # of whole numbers: what seeds and counts of the libraries hold


def setting(
    kind: type, default: Any, meaning: str, *, determines: bool = True, key: bool = True, **bounds: Any
) -> Any:
    """A field of a class of settings.

    Args:
        kind: int, float, str or bool.
        default: A tuple makes it several values, None an optional one, REQUIRED one without a default.
        meaning: What it is, in sentences.
        determines: Whether results follow from it. What does not only says how they are computed, and changes
            at most rounding and, of a training with dropout, its masks: a change of it reruns nothing.
        key: Whether it is a key of the configuration, or of the command line alone.
        bounds: ``least``, ``most`` (inclusive), ``above``, ``below`` (exclusive), ``choices``; ``none``, a
            word that is written for None; of several values ``several`` (where the default is no tuple),
            ``unique`` (none twice) and ``empty`` (there may be none).

    Raises ValueError for a bool that is True by default: on a command line it could not be turned off.
    """
    if kind is bool and default is True:
        raise ValueError(f"a flag is off by default; name the opposite of: {meaning}")
    metadata = {"kind": kind, "help": meaning, "determines": determines, "key": key, **bounds}
    return field(default=default, metadata=metadata | {"several": is_several(default, bounds)})


def is_several(default: Any, bounds: Mapping) -> bool:
    return isinstance(default, tuple) or bounds.get("several", False)


def section(settings: type, meaning: str, *, default: Any = None, named: bool = False) -> Any:
    """A field that is a mapping of its own, with the keys of the class ``settings``; if ``named``, a mapping
    from names to such. It is absent by default (None), or has its own defaults ({}), or is REQUIRED."""
    metadata = {"section": settings, "help": meaning, "named": named, "key": True}
    if default == {}:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that were checked one by one; subclasses check in ``check`` how they go together. ``WHAT`` is
    what messages begin with. Raises UserError for values that cannot be."""

    WHAT: ClassVar[str] = "settings"

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if "kind" in one.metadata and (fault := _fault(one, value)):
                raise UserError(f"{self.WHAT}: {one.name} is {value}, it must be {fault}")
        self.check()

    def check(self) -> None:
        """Raise a UserError if the settings do not go together."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping that may hold other keys too; what it lacks has its default."""
        return cls(**{f.name: _read(f, values[f.name]) for f in fields(cls) if f.name in values})

    @classmethod
    def tuning(cls) -> list[str]:
        """Names of the settings that determine no result."""
        return [one.name for one in fields(cls) if not one.metadata.get("determines", True)]

    def determining(self) -> dict[str, Any]:
        """The settings that determine results, by name."""
        return {name: value for name, value in asdict(self).items() if name not in self.tuning()}


def check_words(where: str, words: Sequence[str]) -> None:
    """Raise a UserError if one of several values of an option looks like an option itself."""
    for word in words:
        if word.startswith("-"):
            raise UserError(f"{where}: {word!r} begins with -, which a name here does not")


def _read(one: Field, value: Any) -> Any:
    """A value as it is written, with None for the word that stands for it."""
    return None if value is not None and value == one.metadata.get("none") else value


def _fault(one: Field, value: Any) -> str | None:
    """What a value must be, if it is not that."""
    bounds, kind = one.metadata, one.metadata["kind"]
    if value is None and one.default is None:
        return None
    if bounds["several"]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return "several values"
        return next((fault for item in value if (fault := _one_fault(kind, bounds, item))), None)
    return _one_fault(kind, bounds, value)


def _one_fault(kind: type, bounds: Mapping, value: Any) -> str | None:
    accepted: Any = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (kind in (int, float) and isinstance(value, bool)):
        return {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}[kind]
    if "choices" in bounds and value not in bounds["choices"]:
        return f"one of {', '.join(bounds['choices'])}"
    if kind is str:
        return None if value else "a text that is not empty"
    if kind is bool:
        return None
    if kind is float and not math.isfinite(value):
        return "finite"
    if "least" in bounds and value < bounds["least"]:
        return f"at least {bounds['least']}"
    if "above" in bounds and value <= bounds["above"]:
        return f"above {bounds['above']}"
    if "most" in bounds and value > bounds["most"]:
        return f"at most {bounds['most']}"
    if "below" in bounds and value >= bounds["below"]:
        return f"below {bounds['below']}"
    return f"at most {LARGEST}" if kind is int and value > LARGEST else None
