"""A variant of the study as a checkpoint to deploy: an ordinary Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..checkpoints.decoder_config import Decoder
from ..checkpoints.folder import MANIFEST, Checkpoint, load_config
from ..checkpoints.manifest import write_manifest
from ..checkpoints.safetensors_io import copy_file
from ..checkpoints.writing import link, writing
from ..errors import UserError
from ..models.artifacts import open_artifact
from ..models.load import load_model
from ..models.verify import verify_checkpoint
from ..pruning.layer_set import LayerSet
from ..runtime.files import read_json, sha256, write_json

SHARD = "5GB"  # largest weights file


def export(
    checkpoint: str | Path, adapter: str | Path | None, out: str | Path, trust_remote_code: bool = False
) -> None:
    """Write into ``out`` the cut model in ``checkpoint`` with the artifact of its healing, in the folder
    ``adapter``, merged into its weights, which stay in the precision of the file: merging into 4-bit weights
    would lose as much as an adapter changes. Without an artifact the weights are hard-linked.

    What is written is loaded once by name and shape. Raises UserError for a folder that is no checkpoint of
    the study, or an artifact of another one.
    """
    source, out = Checkpoint.read(checkpoint), Path(out)
    manifest_path = source.folder / MANIFEST
    if not manifest_path.exists():
        raise UserError(f"{checkpoint} has no {MANIFEST}: make it with scripts/cut.py")
    manifest = read_json(manifest_path)
    with writing(source.folder, out):
        if adapter is None:
            indices = source.folder.glob("*.safetensors.index.json")
            for path in [*(source.folder / name for name in source.shards), *indices]:
                link(path, out / path.name)
        else:
            artifact = open_artifact(adapter)
            merged = artifact.merge(load_model(source.folder, "stored", trust_remote_code))
            merged.save_pretrained(out, max_shard_size=SHARD)
            for path in out.glob("*.safetensors"):  # which are private else
                shutil.copymode(source.folder / "config.json", path)
        for path in [source.folder / "config.json", *source.small_files]:
            (out / path.name).unlink(missing_ok=True)
            copy_file(path, out / path.name)
        if adapter is not None:  # what was merged into are ordinary numbers
            config = read_json(out / "config.json")
            if config.pop("quantization_config", None):
                write_json(out / "config.json", config)
        verify_checkpoint(out, trust_remote_code=trust_remote_code)
        write_manifest(
            out,
            manifest["model"],
            LayerSet.parse(manifest["block"]),
            manifest["source"],
            sha256(manifest_path),
            Decoder.of(load_config(out, trust_remote_code)),
        )
