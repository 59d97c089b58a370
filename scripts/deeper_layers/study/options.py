"""Settings of a stage as command-line options, apart by whether they determine its results.

Those that do are ``params`` of the stage's rule: Snakemake compares them, and a change reruns the stage.
Those that only say how it is computed (``determines=False`` in ``settings``) are its resource ``tuning``,
since of a rule's resources Snakemake compares none.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from ..settings.base import Settings


def options(values: Mapping) -> str:
    """Settings as command-line options, sorted and quoted for a shell: {"rank": 2, "batch": 16} ->
    "--batch 16 --rank 2".

    A string, so that Snakemake compares settings by value and a reordered configuration reruns nothing.
    """
    words = []
    for key, value in sorted(values.items()):
        if value is None or value is False or value == []:
            continue
        words.append("--" + key.replace("_", "-"))
        if isinstance(value, str) and value.startswith("-"):  # argparse would take it for an option
            words[-1] += f"={value}"
        elif value is not True:
            words += [str(v) for v in (value if isinstance(value, list) else [value])]
    return shlex.join(words)


def determining(settings: type[Settings], values: Mapping) -> dict:
    """Those of ``values`` that determine results: all but what ``settings`` says does not."""
    return {key: value for key, value in values.items() if key not in settings.tuning()}


def tuning(settings: type[Settings], values: Mapping) -> str:
    """The options of those of ``values`` that, as ``settings`` says, only say how a stage is computed."""
    chosen = {key: values[key] for key in settings.tuning() if key in values}
    return options(chosen | {"spill": expanded(chosen.get("spill"))})


def without(values: Mapping, *keys: str) -> dict:
    """A copy of ``values`` without some keys."""
    return {key: value for key, value in values.items() if key not in keys}


def expanded(path: str | None) -> str | None:
    """A path of the configuration: a leading ``~`` is the home folder, all else is taken as it is written."""
    return path and os.path.expanduser(path)
