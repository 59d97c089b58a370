"""Hugging Face checkpoints on disk: read and check them, adopt them, cut layers out of them.

Nothing here loads a tensor; only ``verify`` imports torch. A folder counts as a checkpoint of this
project once it has a ``manifest.json``, which is written last: what a killed writer leaves has none.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from ..errors import UserError
from ..pruning.blocks import FULL, Block
from ..runtime.files import read_json, sha256, write_json
from . import decoder_config as configs
from . import safetensors_io
from .decoder_config import Decoder
from .leftovers import is_leftover, strangers
from .limits import check_kind
from .quantised import Asked, as_numbers, check_quantised, cut_exceptions
from .safetensors_io import Header, Tensor
from .vocabulary import EMBEDDING

MANIFEST = "manifest.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
Shards = Mapping[str, dict[str, Tensor]]  # file name -> tensors by name

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
        raw = _read_object(folder / "config.json")
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


@dataclass(frozen=True)
class LayerNames:
    """How a checkpoint's tensors are named: ``prefix``.INDEX.rest for those of layer INDEX of L."""

    prefix: str
    n_layers: int

    def index(self, name: str) -> int | None:
        """The layer that a tensor belongs to, None if to none. L and above are layers for multi-token
        prediction, which this transformers does not run and which no cut keeps."""
        prefix, index, _ = split_name(name)
        return index if prefix == self.prefix else None

    def after(self, name: str, block: Block) -> str | None:
        """The tensor's name once ``block`` is removed; None if it goes with it."""
        index = self.index(name)
        if index is None or index < block.first:
            return name
        if index <= block.last or index >= self.n_layers:
            return None
        return ".".join([*filter(None, [self.prefix]), str(index - block.n), split_name(name)[2]])


def split_name(name: str) -> tuple[str, int | None, str]:
    """A tensor name at its first number: 'model.layers.3.mlp.up' -> ('model.layers', 3, 'mlp.up')."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isascii() and part.isdigit() and len(part) < 10:
            return ".".join(parts[:i]), int(part), ".".join(parts[i + 1 :])
    return name, None, ""


def layer_names(checkpoint: Checkpoint, decoder: Decoder) -> LayerNames:
    """Find the decoder layers among the tensor names.

    Raises UserError if the weights do not have the number of layers, or an embedding of the size, that the
    config says.
    """
    n_layers = decoder.n_layers
    found: dict[str, set[int]] = {}
    for name in checkpoint.tensors:
        prefix, index, _ = split_name(name)
        if index is not None:
            found.setdefault(prefix, set()).add(index)
    last = n_layers + decoder.prediction_layers
    fits = [p for p, at in found.items() if set(range(n_layers)) <= at and max(at) < last]
    decoders = [p for p in fits if re.search(r"language|text|decoder", p)]
    if len(fits) > 1 and len(decoders) == 1:
        fits = decoders
    if len(fits) == 1:
        _check_embedding(checkpoint, decoder)
        return LayerNames(fits[0], n_layers)
    if fits:
        raise UserError(f"{checkpoint.folder}: which of {', '.join(sorted(fits))} are the decoder layers?")
    most = max(found, key=lambda p: len(found[p]), default=None)
    held = f"{len(found[most])} ({most}.*)" if most is not None else "none"
    raise UserError(
        f"{checkpoint.folder}: config.json says {n_layers} layers, but the weights hold {held}; "
        "one of the two belongs to another model"
    )


def _check_embedding(checkpoint: Checkpoint, decoder: Decoder) -> None:
    """Raise if the token embedding is smaller or of another width than the config says. A few models add
    rows to it; ``verify`` checks every shape."""
    size = decoder.vocabulary, decoder.width
    for name, tensor in checkpoint.tensors.items():
        if EMBEDDING.search(name) and (tensor.shape[:1] < size[:1] or tensor.shape[1:] != size[1:]):
            raise UserError(
                f"{checkpoint.folder}: config.json says {size[0]} tokens of width {size[1]}, but {name} is "
                f"{' x '.join(map(str, tensor.shape))}; one of the two belongs to another model"
            )


def load_config(folder: str | Path, trust_remote_code: bool = False):
    """The folder's config as transformers loads it, defaults filled in. UserError if it cannot."""
    from transformers import AutoConfig  # here, because reading headers needs no transformers

    raw = _read_object(Path(folder) / "config.json")
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


def cut(
    source: str | Path,
    block: Block,
    target: str | Path,
    trust_remote_code: bool = False,
    reshard: bool = False,
) -> None:
    """Write into ``target`` the checkpoint in ``source`` without the layers of ``block``.

    Shards whose tensors keep their names are hard-linked (copied across file systems), the others
    rewritten by copying byte ranges, whose blocks XFS and Btrfs share; ``reshard`` writes one shard per
    layer, so that later cuts of the result rewrite only the layers behind them. The manifest comes last; one
    in ``source`` says what its config means, so that transformers is not imported. Raises UserError for a
    checkpoint that is not sound or cannot be cut, a block that does not fit, a disk without room; on any
    failure what was written is deleted.
    """
    base, target = Checkpoint.read(source), Path(target)
    parent = _parent(base.folder)
    expected, decoder = None, _recorded_decoder(base.folder, parent)
    if decoder is None:
        config = load_config(base.folder, trust_remote_code)
        expected, decoder = configs.cut_config(config, block), Decoder.of(config)
    names = layer_names(base, decoder)
    raw_config = configs.cut_json(base.raw_config, decoder, block)
    place = {old: new for new, old in enumerate(block.kept(decoder.n_layers))}
    raw_config = cut_exceptions(raw_config, names.prefix.split(".")[-1], place)
    kept = base if trust_remote_code else base.without_leftovers()
    shards = _shards_by_layer(kept, names, block) if reshard else _shards_after(kept, names, block)
    with writing(base.folder, target):
        _check_room(base, shards, target)
        known = _write_shards(base, shards, target, parent["files"])
        for path in base.small_files + (base.code if trust_remote_code else []):
            safetensors_io.copy_file(path, target / path.name)
        write_json(target / "config.json", raw_config)
        if expected is not None:
            _check_config(target, expected, trust_remote_code)
        write_manifest(
            *(target, parent["model"], block, parent["source"], parent["sha256"]),
            decoder.without(block),
            known,
        )


def adopt(
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
    configs.check_supported(decoder)
    names = layer_names(base, decoder)
    _tell_of_adapter(base.folder)
    for path in base.small_files:
        if path.suffix == ".json":
            _read_json(path)
    paths = [base.folder / "config.json", *base.small_files, *(base.code if trust_remote_code else [])]
    index = read_json(base.folder / INDEX) if base.sharded else {"metadata": {}}
    if not reshard:
        paths += [base.folder / name for name in base.shards]
        paths += [base.folder / INDEX] if base.sharded and _has_metadata(index) else []
    with writing(base.folder, target):
        known = {}
        if reshard:
            kept = base if trust_remote_code else base.without_leftovers()
            shards = _shards_by_layer(kept, names, FULL)
            _check_room(base, shards, target)
            known = _write_shards(base, shards, target, parent={})
        elif not _has_metadata(index):  # transformers does not load one without
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


def write_manifest(
    folder: str | Path,
    model: str,
    block: Block,
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
    sizes = _sizes(Checkpoint.read(folder), decoder)
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


def verify(folder: str | Path, source: str | Path | None = None, trust_remote_code: bool = False) -> None:
    """Load the checkpoint as a user would. Raises UserError for any missing, unexpected or misshapen tensor
    and, given the ``source`` it was cut from, for a config that reads back as another one than was meant and
    for any kept layer that became another one.

    Loaded on torch's meta device: names and shapes are checked, no weight is read.
    """
    import transformers  # here, because cutting needs neither it nor torch

    from ..models.layers import check_kept

    if source is not None:
        block = Block.parse(_read_object(Path(folder) / MANIFEST)["block"])
        config = load_config(source, trust_remote_code)
        _check_config(Path(folder), configs.cut_config(config, block), trust_remote_code)
        check_kept(config, block, trust_remote_code)
    config = load_config(folder, trust_remote_code)
    checkpoint = Checkpoint.read(folder)
    names = layer_names(checkpoint, Decoder.of(config))
    try:
        _, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=as_numbers(config),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            device_map={"": "meta"},
        )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{folder} does not load: {lines[0]}") from None
    faults = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": [
            k
            for k in strangers(info["unexpected_keys"], checkpoint.tensors)
            if (names.index(k) or 0) < names.n_layers
        ],
        "of another shape": sorted(map(str, info["mismatched_keys"])),
    }
    for what, keys in faults.items():
        if keys:
            raise UserError(f"{folder}: {len(keys)} tensors are {what}, first {keys[0]}")


def _sizes(checkpoint: Checkpoint, decoder: Decoder) -> dict:
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


def _shards_after(base: Checkpoint, names: LayerNames, block: Block) -> Shards:
    """The shards as they are, without the tensors of ``block``, renamed; those that become empty are gone."""
    shards = {
        file: {new: t for name, t in header.tensors.items() if (new := names.after(name, block)) is not None}
        for file, header in base.shards.items()
    }
    return {file: tensors for file, tensors in shards.items() if tensors}


def _shards_by_layer(base: Checkpoint, names: LayerNames, block: Block) -> Shards:
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


def _check_room(base: Checkpoint, shards: Shards, target: Path) -> None:
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


def _write_shards(
    base: Checkpoint, shards: Shards, target: Path, parent: Mapping[str, dict]
) -> dict[str, dict]:
    """Link or write each shard, and the index if there are several; return the manifest entries known by
    then, those of linked shards from the ``parent``'s."""
    known = {}
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
        index["metadata"] = {**(index["metadata"] if _has_metadata(index) else {}), "total_size": total}
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


def _check_config(target: Path, expected, trust_remote_code: bool) -> None:
    """Raise unless the config.json written reads back as the config that was meant."""
    found = load_config(target, trust_remote_code).to_dict()
    expected = expected.to_dict()
    differing = [k for k in expected | found if k[0] != "_" and expected.get(k) != found.get(k)]
    if differing:
        raise UserError(
            f"a config of type {found['model_type']!r} cannot be written for fewer layers: "
            f"{', '.join(differing)} would come back changed"
        )


def _parent(folder: Path) -> dict:
    """What a manifest says of the checkpoint that is cut; the like for a folder without one."""
    path = folder / MANIFEST
    if not path.exists():
        source = {"kind": "folder", "id": str(folder), "revision": None}
        return {"model": folder.name, "source": source, "sha256": None, "files": {}}
    return {**_read_object(path), "sha256": sha256(path)}


def _recorded_decoder(folder: Path, manifest: Mapping) -> Decoder | None:
    """What the manifest says of the decoder, unless the config.json is not the one it was written for."""
    known = manifest["files"].get("config.json", {}).get("sha256")
    if "decoder" not in manifest or known != sha256(folder / "config.json"):
        return None
    return Decoder(**manifest["decoder"])


@contextmanager
def writing(source: Path, target: Path):
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


def _entry(path: Path) -> dict:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _read_shards(folder: Path) -> dict[str, Header]:
    """The headers of the files that the index names, checked against it."""
    weight_map = _read_object(folder / INDEX).get("weight_map")
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


def _has_metadata(index: Mapping) -> bool:
    return isinstance(index.get("metadata"), dict)


def _tell_of_adapter(folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("adapter_*") if path.is_file())
    if names:
        print(
            f"left out: {', '.join(names)}. An adapter lies beside the weights of {folder}, and the weights "
            "are taken as they are: if it is not merged into them, merge it first",
            flush=True,
        )


def _no_weights(folder: Path) -> str:
    others = sorted(p.name for pattern in OTHER_WEIGHTS for p in folder.glob(pattern))
    if others:
        return (
            f"{folder} holds {others[0]} but no safetensors, and only safetensors is loaded; convert it "
            "once: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    return f"{folder} has neither {SINGLE} nor {INDEX}, so it is not a checkpoint"


def _read_json(path: Path):
    try:
        return read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def _read_object(path: Path) -> dict:
    value = _read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value
