"""Adopt a checkpoint folder as the full model of a study: links and a manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..pruning.layer_set import FULL
from ..runtime.files import read_json, write_json
from . import decoder_config
from .decoder_config import Decoder
from .folder import INDEX, Checkpoint, has_metadata, load_config, read_any_json
from .layer_names import layer_names
from .limits import check_kind
from .manifest import write_manifest
from .quantised import Asked, check_quantised
from .writing import check_room, shards_by_layer, write_shards, writing


def adopt_checkpoint(
    source: str | Path,
    model: str,
    target: str | Path,
    origin: Mapping | None = None,
    trust_remote_code: bool = False,
    reshard: bool = False,
) -> None:
    """Make ``target`` the full checkpoint of ``model``: links to the files in ``source``, and a manifest.
    ``reshard`` writes the weights once more, a shard for each layer, so that cuts link what they share.

    ``source`` is a local folder or a snapshot folder of the Hugging Face cache; ``origin`` is what the
    manifest calls the source (default: that folder). Everything is checked first, so that a faulty
    checkpoint is a UserError here and not a failure on the GPU.
    """
    base, target = Checkpoint.read(source), Path(target)
    check_kind(base.raw_config, str(source))
    check_quantised(base.raw_config, str(source), Asked(), base.folder, base.tensors)
    decoder = Decoder.of(load_config(base.folder, trust_remote_code))
    decoder_config.check_supported(decoder)
    names = layer_names(base, decoder)
    _tell_of_adapter(base.folder)
    for path in base.small_files:
        if path.suffix == ".json":
            read_any_json(path)
    paths = [base.folder / "config.json", *base.small_files, *(base.code if trust_remote_code else [])]
    index = read_json(base.folder / INDEX) if base.sharded else {"metadata": {}}
    if not reshard:
        paths += [base.folder / name for name in base.shards]
        paths += [base.folder / INDEX] if base.sharded and has_metadata(index) else []
    with writing(base.folder, target):
        known = {}
        if reshard:
            kept = base if trust_remote_code else base.without_leftovers()
            shards = shards_by_layer(kept, names, FULL)
            check_room(base, shards, target)
            known = write_shards(base, shards, target, parent={})
        elif not has_metadata(index):  # transformers does not load one without
            total = sum(tensor.bytes for tensor in base.tensors.values())
            write_json(target / INDEX, index | {"metadata": {"total_size": total}})
        for path in paths:
            real = path.resolve()
            (target / path.name).unlink(missing_ok=True)
            (target / path.name).symlink_to(real)
            if re.fullmatch(r"[0-9a-f]{64}", real.name):  # the hub's cache names large files by their sha256
                known[path.name] = {"sha256": real.name, "bytes": real.stat().st_size}
        origin = origin or {"kind": "folder", "id": str(source), "revision": None}
        write_manifest(target, model, FULL, origin, None, decoder, known)


def _tell_of_adapter(folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("adapter_*") if path.is_file())
    if names:
        print(
            f"left out: {', '.join(names)}. An adapter lies beside the weights of {folder}, and the weights "
            "are taken as they are: if it is not merged into them, merge it first",
            flush=True,
        )
