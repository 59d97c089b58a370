"""An exported checkpoint in 4 bits, as bitsandbytes stores it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from ..checkpoints.folder import Checkpoint, load_config
from ..checkpoints.safetensors_io import copy_file
from ..checkpoints.writing import writing
from ..errors import UserError
from ..models.auto import model_class
from ..models.load import device, portable_nf4, quantisation
from ..models.nf4 import check_nf4
from ..runtime.memory import is_out_of_memory
from .merge import SHARD


def write_nf4(checkpoint: str | Path, out: str | Path, trust_remote_code: bool = False) -> None:
    """Write the checkpoint in the folder ``checkpoint`` into ``out`` with the weights of its linear layers in
    NF4, double quantised, as the study evaluates in ``nf4``, to be computed with in bf16. What is no linear
    layer stays as it is.

    Raises UserError if this machine computes NF4 wrongly, or the model does not fit in memory.
    """
    source, out = Checkpoint.read(checkpoint), Path(out)
    with writing(source.folder, out):
        try:
            model = model_class(load_config(source.folder, trust_remote_code)).from_pretrained(
                source.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                device_map={"": device()},
                dtype="auto",
                quantization_config=quantisation(torch.bfloat16),
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"{checkpoint} in nf4 does not fit in memory: take a larger card") from None
        check_nf4(portable_nf4(model))
        model.save_pretrained(out, max_shard_size=SHARD)
        for path in out.glob("*.safetensors"):  # which are private else
            shutil.copymode(source.folder / "config.json", path)
        for path in source.small_files:
            if not (out / path.name).exists():
                copy_file(path, out / path.name)
