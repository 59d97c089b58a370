"""Writing a checkpoint: the folder cleared before and after a failure, shards linked or written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..pruning.layer_set import LayerSet
from ..runtime.files import read_json, write_json
from . import safetensors_io
from .folder import INDEX, MANIFEST, SINGLE, SMALL, Checkpoint, has_metadata, load_config
from .layer_names import LayerNames
from .safetensors_io import Tensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Shards = Mapping[str, dict[str, Tensor]]  # file name -> tensors by name


def shards_without(base: Checkpoint, names: LayerNames, block: LayerSet) -> Shards:
    """The shards as they are, without the tensors of ``block``, renamed; those that become empty are gone."""
    shards = {
        file: {new: t for name, t in header.tensors.items() if (new := names.after(name, block)) is not None}
        for file, header in base.shards.items()
    }
    return {file: tensors for file, tensors in shards.items() if tensors}


def shards_by_layer(base: Checkpoint, names: LayerNames, block: LayerSet) -> Shards:
    """One shard for each layer that stays, after one for everything else."""
    groups: dict[int, dict[str, Tensor]] = {}
    for name, tensor in base.tensors.items():
        if (new := names.after(name, block)) is not None:
            index = names.index(new)
            groups.setdefault(-1 if index is None else index, {})[new] = tensor
    return {
        f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": groups[key]
        for i, key in enumerate(sorted(groups))
    }


def _unchanged(base: Checkpoint, file: str, tensors: Mapping[str, Tensor]) -> bool:
    return file in base.shards and list(tensors.items()) == list(base.shards[file].tensors.items())


def check_room(base: Checkpoint, shards: Shards, target: Path) -> None:
    """Raise unless the file system of ``target`` has room for the shards that will not be linked."""
    same = target.stat().st_dev == (base.folder / next(iter(base.shards))).stat().st_dev
    written = [s for file, s in shards.items() if not (same and _unchanged(base, file, s))]
    needed = sum(t.bytes for tensors in written for t in tensors.values())
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"no room for {target}: it needs {needed / 1e9:.3f} GB and {free / 1e9:.3f} GB are free; "
            "free some, or set outdir to another disk"
        )


def write_shards(
    base: Checkpoint, shards: Shards, target: Path, parent: Mapping[str, dict]
) -> dict[str, dict]:
    """Link or write each shard, and the index if there are several; return the manifest entries known by
    then, those of linked shards from the ``parent``'s."""
    known: dict[str, dict] = {}
    metadata = next(iter(base.shards.values())).metadata
    for file, tensors in shards.items():
        if _unchanged(base, file, tensors):
            link(base.folder / file, target / file)
            known |= {file: parent[file]} if file in parent else {}
        else:
            digest = safetensors_io.write(target / file, tensors, metadata)
            known[file] = {"sha256": digest, "bytes": (target / file).stat().st_size}
    if set(shards) != {SINGLE}:
        index = read_json(base.folder / INDEX) if base.sharded else {}
        total = sum(t.bytes for tensors in shards.values() for t in tensors.values())
        index["metadata"] = {**(index["metadata"] if has_metadata(index) else {}), "total_size": total}
        index["weight_map"] = dict(sorted((name, file) for file, names in shards.items() for name in names))
        write_json(target / INDEX, index)
    return known


def link(source: Path, target: Path) -> None:
    """Hard-link a file (what a symbolic link leads to); copy it where links are not possible."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
            raise
        safetensors_io.copy_file(source, target)


def check_config(target: Path, expected: PretrainedConfig, trust_remote_code: bool) -> None:
    """Raise unless the config.json written reads back as the config that was meant."""
    found = load_config(target, trust_remote_code).to_dict()
    expected = expected.to_dict()
    differing = [k for k in expected | found if k[0] != "_" and expected.get(k) != found.get(k)]
    if differing:
        raise UserError(
            f"a config of type {found['model_type']!r} cannot be written for fewer layers: "
            f"{', '.join(differing)} would come back changed"
        )


@contextmanager
def writing(source: Path, target: Path) -> Iterator[None]:
    """Clear ``target`` of an earlier checkpoint; on failure of what follows, of this one too."""
    if target.resolve() == source.resolve():
        raise UserError(f"the target {target} is the source itself; write to another folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        _clear(target)
        yield
    except OSError as error:
        _clear(target)
        raise UserError(f"cannot write {error.filename or target}: {error.strerror}") from error
    except BaseException:
        _clear(target)
        raise


def _clear(target: Path) -> None:
    """Delete the checkpoint in ``target``, its manifest first, so that nothing trusts the rest."""
    if not target.is_dir():
        return
    (target / MANIFEST).unlink(missing_ok=True)
    for path in target.iterdir():
        old = path.suffix == ".safetensors" or SMALL.fullmatch(path.name) or path.name.endswith(".tmp")
        if old and (path.is_file() or path.is_symlink()):
            path.unlink()
