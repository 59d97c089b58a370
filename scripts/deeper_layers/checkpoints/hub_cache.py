"""Where the Hugging Face cache keeps a file, without the import of huggingface_hub (0.2 s): Snakemake asks
each time it reads the Snakefile.

Layout: ``models--OWNER--NAME/refs/BRANCH`` holds a commit, ``models--OWNER--NAME/snapshots/COMMIT`` its
files.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..runtime.files import read_json


def cache_folder() -> Path:
    """The cache of models: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    get = os.environ.get
    home = get("HF_HOME", os.path.join(get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    folder = get("HF_HUB_CACHE", get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    return Path(os.path.expandvars(os.path.expanduser(folder)))


def cached_file(model_id: str, revision: str | None, name: str) -> Path | None:
    """A file of a cached model, None if it is not there. ``revision``: a commit, branch or tag."""
    folder = cache_folder() / f"models--{model_id.replace('/', '--')}"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        commit = revision or "main"
    path = folder / "snapshots" / commit / name
    return path if path.is_file() else None


def downloaded(record: Path) -> tuple[Path, dict]:
    """(folder in the cache, origin: kind, id and revision) of a model, from what download.py wrote."""
    facts = read_json(record)
    return Path(facts["folder"]), {key: facts[key] for key in ("kind", "id", "revision")}


def is_offline() -> bool:
    """Whether the user said that there is no hub (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE", "")
    return value.upper() in {"1", "ON", "YES", "TRUE"}
