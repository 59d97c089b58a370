"""Hugging Face checkpoints as folders: read and check their config, headers, shards.

Nothing here loads a tensor. A folder counts as a checkpoint of this project once it has a ``manifest.json``,
which is written last: what a killed writer leaves has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..runtime.files import read_json
from . import safetensors_io
from .leftovers import is_leftover
from .safetensors_io import Header, Tensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MANIFEST = "manifest.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
# What goes along with the weights: configurations, tokenizers, chat templates, licences; never code.
SMALL = re.compile(r".*\.(json|txt|model|jinja|tiktoken)|LICENSE.*|NOTICE.*|USE_POLICY.*")


@dataclass(frozen=True)
class Checkpoint:
    """A folder's raw config.json and the headers of its safetensors files, by file name."""

    folder: Path
    raw_config: dict
    shards: Mapping[str, Header]
    sharded: bool

    @classmethod
    def read(cls, folder: str | Path) -> Checkpoint:
        """Read and check the config, the index if there is one, and the header of every shard.

        Raises UserError for a folder that is missing, has no safetensors, lacks a shard, has a damaged
        one, or names a file outside itself.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}")
        raw = read_json_object(folder / "config.json")
        sharded = not (folder / SINGLE).exists() and (folder / INDEX).exists()
        if sharded:
            return cls(folder, raw, _read_shards(folder), True)
        if not (folder / SINGLE).exists():
            raise UserError(_no_weights(folder))
        return cls(folder, raw, {SINGLE: safetensors_io.read_header(folder / SINGLE)}, False)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        return {name: t for header in self.shards.values() for name, t in header.tensors.items()}

    @cached_property
    def small_files(self) -> list[Path]:
        """Tokenizer, generation config, licence and so on, sorted; not config.json, not an index, and not
        the config of an adapter, which transformers would look for."""
        others = {"config.json", MANIFEST, ADAPTER}
        return sorted(
            path
            for path in self.folder.iterdir()
            if SMALL.fullmatch(path.name)
            and path.name not in others
            and not path.name.endswith(".index.json")
            and path.is_file()
        )

    def without_leftovers(self) -> Checkpoint:
        """The same without the masks and tables that today's classes compute (see ``leftovers``)."""
        shards = {
            file: replace(
                header, tensors={n: t for n, t in header.tensors.items() if not is_leftover(n, t.shape)}
            )
            for file, header in self.shards.items()
        }
        return replace(self, shards=shards)

    @property
    def code(self) -> list[Path]:
        """Python files that come with the model, sorted; only for one that is trusted."""
        return sorted(self.folder.glob("*.py"))


def load_config(folder: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The folder's config as transformers loads it, defaults filled in. UserError if it cannot."""
    from transformers import AutoConfig  # here, because reading headers needs no transformers

    raw = read_json_object(Path(folder) / "config.json")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # configs raise whatever they like
        if raw.get("auto_map") and not trust_remote_code:
            raise UserError(
                f"{folder} asks to run code of its own (auto_map in config.json), which is off; set "
                "trust_remote_code: true for this model if you have read that code"
            ) from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{folder}/config.json is not accepted by transformers: {lines[0]}") from None


def _read_shards(folder: Path) -> dict[str, Header]:
    """The headers of the files that the index names, checked against it."""
    weight_map = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise UserError(f"{folder / INDEX} has no weight_map from tensor names to file names")
    files = sorted(set(weight_map.values()))
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX} names the file {file!r}, which is not a shard in that folder")
        if not (folder / file).is_file():
            raise UserError(f"{folder} lacks the shard {file}; download it again")
    shards = {file: safetensors_io.read_header(folder / file) for file in files}
    for name, file in weight_map.items():
        if name not in shards[file].tensors:
            raise UserError(f"{folder / INDEX} says that {file} holds {name!r}, but it does not")
    return shards


def has_metadata(index: Mapping) -> bool:
    return isinstance(index.get("metadata"), dict)


def _no_weights(folder: Path) -> str:
    others = sorted(p.name for pattern in OTHER_WEIGHTS for p in folder.glob(pattern))
    if others:
        return (
            f"{folder} holds {others[0]} but no safetensors, and only safetensors is loaded; convert it "
            "once: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    return f"{folder} has neither {SINGLE} nor {INDEX}, so it is not a checkpoint"


def read_any_json(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def read_json_object(path: Path) -> dict:
    value = read_any_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value
