"""Load a checkpoint as a user would, on torch's meta device: names and shapes are checked, no weight read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from ..checkpoints import decoder_config
from ..checkpoints.cut import raw_config_without
from ..checkpoints.decoder_config import Decoder
from ..checkpoints.folder import MANIFEST, Checkpoint, load_config, read_json_object
from ..checkpoints.layer_names import layer_names
from ..checkpoints.leftovers import strangers
from ..checkpoints.quantised import as_numbers
from ..checkpoints.safetensors_io import copy_file
from ..checkpoints.writing import check_config
from ..errors import UserError
from ..pruning.layer_set import LayerSet
from ..runtime.files import write_json


def verify_checkpoint(
    folder: str | Path, source: str | Path | None = None, trust_remote_code: bool = False
) -> None:
    """Load the checkpoint as a user would. Raises UserError for any missing, unexpected or misshapen tensor
    and, given the ``source`` it was cut from, for a config that reads back as another one than was meant and
    for any kept layer that became another one.

    Loaded on torch's meta device: names and shapes are checked, no weight is read.
    """
    from .auto import model_class  # here, because cutting needs neither transformers nor torch
    from .layers import check_kept

    if source is not None:
        block = LayerSet.parse(read_json_object(Path(folder) / MANIFEST)["block"])
        config = load_config(source, trust_remote_code)
        check_config(Path(folder), decoder_config.cut_config(config, block), trust_remote_code)
        check_kept(config, block, trust_remote_code)
    config = load_config(folder, trust_remote_code)
    checkpoint = Checkpoint.read(folder)
    names = layer_names(checkpoint, Decoder.of(config))
    try:
        _, info = model_class(config).from_pretrained(
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


def verify_cuts(source: str | Path, blocks: Iterable[LayerSet], trust_remote_code: bool = False) -> None:
    """Check the cuts of a checkpoint before any is written. Raises UserError for a block whose removal would
    change what stays, or give a config that reads back as another one than was meant.

    The weights of a cut are those of ``source`` by other names; who loads it checks that it needs no others.
    """
    from .layers import check_kept, without_weights

    base, config = Checkpoint.read(source), load_config(source, trust_remote_code)
    decoder, uncut = Decoder.of(config), without_weights(config, trust_remote_code)
    for block in blocks:
        if not block.n:
            continue
        check_kept(config, block, trust_remote_code, uncut)
        with TemporaryDirectory() as folder:
            for path in base.code if trust_remote_code else []:
                copy_file(path, Path(folder) / path.name)
            write_json(Path(folder) / "config.json", raw_config_without(base, decoder, block))
            check_config(Path(folder), decoder_config.cut_config(config, block), trust_remote_code)
