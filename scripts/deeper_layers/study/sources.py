"""Where the models of a study come from, and what is known of them before anything runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import config_keys, gguf
from ..checkpoints.hub_cache import cached_file
from ..runtime.files import read_json

# What a hub model is taken for until its config.json is here.
LLAMA_2_7B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


def expanded(path: str) -> str:
    """A path of the configuration: a leading ``~`` is the home folder, all else is taken as it is written."""
    return os.path.expanduser(path)


@dataclass(frozen=True)
class ResolvedModel:
    """A model of a study. ``kind`` says where it comes from: ``pretrain`` (trained here), ``folder`` or
    ``gguf`` (the path ``id``), or ``hub`` (``id`` and ``revision`` of the Hugging Face hub). ``settings`` are
    the configuration's, ``config`` its config.json, or what a GGUF file says of the same: None where it is
    trained here, or is of the hub and not here yet."""

    name: str
    kind: str
    id: str
    revision: str | None
    settings: Mapping[str, Any]
    config: Mapping[str, Any] | None

    @property
    def pretraining(self) -> Mapping[str, Any]:
        """The settings of its training here."""
        return self.settings["pretrain"]

    @property
    def n_layers(self) -> int | None:
        """Number of decoder layers; None if not known yet."""
        if self.kind == "pretrain":
            return self.pretraining["layers"]
        return config_keys.n_layers(self.config or {})

    @property
    def trust(self) -> dict[str, bool]:
        """The option that lets the Python code of this one model run."""
        return {"trust_remote_code": self.settings["trust_remote_code"]}

    @property
    def fingerprint(self) -> str:
        """Empty, or of a local folder or file what tells whether it holds other weights than before, without
        reading them all and whatever their dates: sizes, files up to 4 MB whole, and a thousand samples of
        others."""
        paths = {"folder": sorted(Path(self.id).glob("*")), "gguf": [Path(self.id)]}.get(self.kind)
        if paths is None:
            return ""
        digest = hashlib.sha256()
        for path in paths:
            if path.suffix not in (".safetensors", ".json", ".gguf") or not path.is_file():
                continue
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with open(path, "rb") as file:
                for part in range(1024):
                    file.seek(part * size // 1024)
                    digest.update(file.read(4096))
        return digest.hexdigest()[:16]


def resolve(name: str, settings: Mapping[str, Any], adopted: Iterable[str | Path]) -> ResolvedModel:
    """The model of the configuration's ``models.NAME``. Its config.json is read from its folder; if it is of
    the hub, from the cache, or else from the first of the paths ``adopted`` that is there. Raises UserError
    for a GGUF file that cannot be read."""
    source, revision = settings["source"], settings.get("revision")
    if source == "pretrain":
        return ResolvedModel(name, "pretrain", source, revision, settings, None)
    path = expanded(source)
    if source.endswith(".gguf"):
        return ResolvedModel(name, "gguf", path, revision, settings, gguf.config_of(gguf.read_header(path)))
    if source.startswith(("/", "./", "../", "~")) or os.path.isdir(source):
        config = Path(path, "config.json")
        # A folder without one is refused by ``checks``, in words of its own.
        return ResolvedModel(
            name, "folder", path, revision, settings, read_json(config) if config.is_file() else None
        )
    paths = [cached_file(path, revision, "config.json"), *map(Path, adopted)]
    found = next((read_json(config) for config in paths if config and config.is_file()), None)
    return ResolvedModel(name, "hub", path, revision, settings, found)
