"""A GGUF file as a plain checkpoint: weights dequantised once, through transformers and the library gguf."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from ..checkpoints.gguf import read_header
from ..checkpoints.manifest import write_manifest
from ..checkpoints.writing import writing
from ..errors import UserError
from ..pruning.layer_set import FULL
from ..runtime.files import sha256
from ..runtime.memory import is_out_of_memory
from .load import DTYPES


def dequantise_checkpoint(file: str | Path, model: str, target: str | Path, dtype: str = "bf16") -> None:
    """Write the model of the GGUF ``file`` into the folder ``target`` as a checkpoint in ``dtype`` (fp32 or
    bf16): weights, config, tokenizer, and a manifest last, for the model called ``model``. The whole
    model is in memory meanwhile.

    Raises UserError for a file that is no GGUF, and for one that transformers cannot read.
    """
    file, target = Path(file), Path(target)
    header = read_header(file)
    kind = header.get("general.architecture")
    if kind not in GGUF_SUPPORTED_ARCHITECTURES:
        raise UserError(
            f"{file} holds a model of the architecture {kind!r}, which transformers does not read from GGUF; "
            "give its checkpoint with safetensors"
        )
    try:
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # transformers and gguf raise whatever they like
        if is_out_of_memory(error):
            raise UserError(
                f"{file}: the whole model in {dtype} does not fit in memory; write dtype: bf16, or take a "
                "machine with more"
            ) from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{file} is not read by transformers ({lines[0]}); give its checkpoint with safetensors"
        ) from None
    with writing(file.parent, target):
        plain(read).save_pretrained(target)
        for path in target.glob("*.safetensors"):  # which are private else
            shutil.copymode(target / "config.json", path)
        tokenizer.save_pretrained(target)
        origin = {"kind": "gguf", "id": str(file), "revision": sha256(file)}
        write_manifest(target, model, FULL, origin, None)


def plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights as a model that may be saved: transformers saves none whose config tells of GGUF."""
    config = copy.deepcopy(model.config)
    for name in ("quantization_config", "_pre_quantization_dtype", "_model_name_or_path"):
        vars(config).pop(name, None)
    config._name_or_path = ""
    with torch.device("meta"):
        anew = type(model)(config)
    anew.load_state_dict(model.state_dict(), assign=True)
    anew.tie_weights()
    anew.generation_config = model.generation_config
    return anew
