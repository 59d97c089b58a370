"""What a study says about its texts: checked while the Snakefile is read; options of scripts/sample.py."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from ..errors import UserError
from .local_source import MODEL, PYTHON, fingerprint, kind
from .text_files import check

# Of a data set, where the user does not say which of its splits ours are drawn from.
DRAWN_FROM = {"train": "train", "calibration": "validation", "validation": "validation"}


def sample_settings(settings: Mapping, split: str, read: Mapping[str, int]) -> dict:
    """The options of the sample that is one of our splits of a text: what determines its documents alone, and
    for local files the numbers of documents of our other splits, of those that are ``read``."""
    theirs = {ours: name for ours, name in settings["splits"].items() if name}
    if kind(settings["source"]) == "datasets":
        sources = DRAWN_FROM | theirs
        shared = [ours for ours in sources if sources[ours] == sources[split]]
        names = (
            "source",
            "name",
            "revision",
            "field",
            "buffer",
            "seed",
            "split",
            "parts",
            "part",
            "documents",
        )
        drawn = {
            "source": os.path.expanduser(settings["source"]),
            "split": sources[split],
            "parts": len(shared),
            "part": shared.index(split),
        }
    else:
        names = ("source", "field", "seed", "documents", "ours", "beside", "splits")
        beside = [f"{ours}={number}" for ours, number in read.items() if ours != split]
        drawn = {"source": os.path.expanduser(settings["source"])}
        drawn |= {"ours": split, "beside": beside, "splits": [f"{ours}={theirs[ours]}" for ours in theirs]}
    settings = {**settings, "documents": settings[split], **drawn}
    return {name: settings[name] for name in names}


def text_fingerprint(source: str) -> str:
    """What changes when a local text does, the files or the Python that it comes from; else empty."""
    what = kind(source)
    return fingerprint(source) if what == "files" else platform.python_version() if what == PYTHON else ""


def check_text(settings: Mapping, read: Mapping[str, int]) -> None:
    """Raise UserError for a text whose splits cannot have the numbers of documents that are ``read``, as far
    as that can be told at little cost. Data sets of the hub are not asked for."""
    source, what = settings["source"], kind(settings["source"])
    for key in ("source", "field", "name", "revision"):
        if (settings[key] or "").startswith("-"):
            raise UserError(
                f"{key} {settings[key]!r} begins with -, which no name here does; a file may be ./-x"
            )
    if what == "datasets":
        owner = source.partition("/")[0]
        if owner != source and settings["revision"] is None and os.path.isdir(owner) > os.path.isdir(source):
            raise UserError(
                f"there is no {source} here, but a folder {owner}; for a data set of the hub give a revision"
            )
    elif what == MODEL:
        if settings["prompts"] is None:
            raise UserError("a text of the model needs prompts: the text whose documents begin as its own do")
    elif what != "generate":
        for key in ("name", "revision"):
            if settings[key] is not None:
                raise UserError(f"only a data set has a {key}, not {source}; leave it out")
        if what == PYTHON and any(settings["splits"].values()):
            raise UserError(f"{PYTHON} has no splits, its documents are dealt; leave them out")
        if what == "files":
            check(source, settings["field"], settings["splits"], read)
