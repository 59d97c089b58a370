"""Cut layers out of a checkpoint: bytes copied, the configuration edited. No tensor is loaded."""

from __future__ import annotations

from pathlib import Path

from ..pruning.layer_set import LayerSet
from ..runtime.files import write_json
from . import decoder_config, safetensors_io
from .decoder_config import Decoder
from .folder import Checkpoint, load_config
from .layer_names import layer_names
from .manifest import parent_of, recorded_decoder, write_manifest
from .quantised import cut_exceptions
from .writing import check_config, check_room, shards_by_layer, shards_without, write_shards, writing


def cut_checkpoint(
    source: str | Path,
    block: LayerSet,
    target: str | Path,
    trust_remote_code: bool = False,
    reshard: bool = False,
) -> None:
    """Write into ``target`` the checkpoint in ``source`` without the layers of ``block``.

    Shards whose tensors keep their names are hard-linked (copied across file systems), the others
    rewritten by copying byte ranges, whose blocks XFS and Btrfs share; ``reshard`` writes one shard per
    layer, so that later cuts of the result rewrite only what comes after the first layer removed. The
    manifest comes last; one in ``source`` says what its config means, so that transformers is not imported.
    Raises UserError for a checkpoint that is not sound or cannot be cut, a block that does not fit, a disk
    without room; on any failure what was written is deleted.
    """
    base, target = Checkpoint.read(source), Path(target)
    parent = parent_of(base.folder)
    expected, decoder = None, recorded_decoder(base.folder, parent)
    if decoder is None:
        config = load_config(base.folder, trust_remote_code)
        expected, decoder = decoder_config.cut_config(config, block), Decoder.of(config)
    names = layer_names(base, decoder)
    raw_config = raw_config_without(base, decoder, block)
    kept = base if trust_remote_code else base.without_leftovers()
    shards = shards_by_layer(kept, names, block) if reshard else shards_without(kept, names, block)
    with writing(base.folder, target):
        check_room(base, shards, target)
        known = write_shards(base, shards, target, parent["files"])
        for path in base.small_files + (base.code if trust_remote_code else []):
            safetensors_io.copy_file(path, target / path.name)
        write_json(target / "config.json", raw_config)
        if expected is not None:
            check_config(target, expected, trust_remote_code)
        write_manifest(
            *(target, parent["model"], block, parent["source"], parent["sha256"]),
            decoder.without(block),
            known,
        )


def raw_config_without(base: Checkpoint, decoder: Decoder, block: LayerSet) -> dict:
    """The content of the config.json of a cut. Raises UserError for a block that cannot be removed."""
    raw = decoder_config.cut_json(base.raw_config, decoder, block)
    place = {old: new for new, old in enumerate(block.kept(decoder.n_layers))}
    return cut_exceptions(raw, layer_names(base, decoder).prefix.split(".")[-1], place)
