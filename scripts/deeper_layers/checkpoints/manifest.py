"""``manifest.json``, written last: what a checkpoint is, its sizes, and the sha256 of each of its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from ..pruning.layer_set import LayerSet
from ..runtime.files import sha256, write_json
from .decoder_config import Decoder
from .folder import MANIFEST, Checkpoint, load_config, read_json_object
from .layer_names import layer_names
from .leftovers import is_leftover


def write_manifest(
    folder: str | Path,
    model: str,
    block: LayerSet,
    source: Mapping,
    parent: str | None,
    decoder: Decoder | None = None,
    known: Mapping[str, Mapping] | None = None,
) -> None:
    """Write ``manifest.json``: what the checkpoint is, its sizes, what its config says of the decoder, and
    the sha256 of each of its files.

    ``source`` is ``{"kind": "pretrain" | "folder" | "hub", "id", "revision"}``, ``parent`` the sha256 of
    the manifest that this checkpoint was cut from. ``decoder`` and ``known``, entries of files, are what need
    not be read again. The same checkpoint gives the same bytes.
    """
    folder = Path(folder)
    known = known or {}
    decoder = decoder or Decoder.of(load_config(folder))
    sizes = sizes_of(Checkpoint.read(folder), decoder)
    paths = sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST and p.name[0] != ".")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing leaves the interpreter's lock
        entries = pool.map(lambda p: known.get(p.name) or _entry(p), paths)
        files = {path.name: dict(entry) for path, entry in zip(paths, entries, strict=True)}
    write_json(
        folder / MANIFEST,
        {
            "model": model,
            "block": str(block),
            "n_layers": sizes["n_layers"],
            "parent": parent,
            "source": dict(source),
            "parameters": sizes["parameters"],
            "bytes": sizes["bytes"],
            "layers": sizes["layers"],
            "decoder": asdict(decoder),
            "files": files,
        },
    )


def sizes_of(checkpoint: Checkpoint, decoder: Decoder) -> dict:
    """Sizes of a checkpoint from its headers alone: ``n_layers``, ``parameters``, ``bytes`` (of tensors)
    and ``layers``, a list of ``{"parameters", "bytes"}``. Layers for multi-token prediction and leftovers of
    older versions are not counted: a cut has the sizes of the full model minus those of the layers removed.
    """
    names = layer_names(checkpoint, decoder)
    layers = [{"parameters": 0, "bytes": 0} for _ in range(names.n_layers)]
    whole = {"parameters": 0, "bytes": 0}
    for name, tensor in checkpoint.tensors.items():
        index = names.index(name)
        if (index is not None and index >= names.n_layers) or is_leftover(name, tensor.shape):
            continue
        for sizes in [whole] if index is None else [whole, layers[index]]:
            sizes["parameters"] += tensor.parameters
            sizes["bytes"] += tensor.bytes
    return {"n_layers": names.n_layers, **whole, "layers": layers}


def parent_of(folder: Path) -> dict:
    """What a manifest says of the checkpoint that is cut; the like for a folder without one."""
    path = folder / MANIFEST
    if not path.exists():
        source = {"kind": "folder", "id": str(folder), "revision": None}
        return {"model": folder.name, "source": source, "sha256": None, "files": {}}
    return {**read_json_object(path), "sha256": sha256(path)}


def recorded_decoder(folder: Path, manifest: Mapping) -> Decoder | None:
    """What the manifest says of the decoder, unless the config.json is not the one it was written for."""
    known = manifest["files"].get("config.json", {}).get("sha256")
    if "decoder" not in manifest or known != sha256(folder / "config.json"):
        return None
    return Decoder(**manifest["decoder"])


def _entry(path: Path) -> dict:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}
