"""Load a checkpoint folder: one place decides device, precision and what counts as a fault."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from ..checkpoints.decoder_config import layer_count
from ..checkpoints.folder import Checkpoint, load_config
from ..checkpoints.layer_names import split_name
from ..checkpoints.leftovers import strangers
from ..checkpoints.quantised import Asked, as_numbers, check_quantised, quantisation_of
from ..errors import UserError
from ..runtime import gpus, nvidia
from ..runtime.memory import is_out_of_memory
from ..runtime.provenance import record
from .auto import model_class
from .nf4 import check_nf4

transformers.logging.disable_progress_bar()

DRIVERS = {"11": 450, "12": 525, "13": 580}  # the first that runs each CUDA, by NVIDIA's compatibility guide
PRECISIONS = ("fp32", "bf16", "nf4", "stored")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def device() -> torch.device:
    """The GPU if there is one, else the CPU. UserError if this process has claimed a card that torch cannot
    use: it must not compute on the CPU instead."""
    if (card := gpus.claimed()) is not None:
        _use(card)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def _use(card: str) -> None:
    """Compute something on the card; UserError, with what to install, if that fails."""
    try:
        torch.cuda.init()
        torch.ones(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        built, driver = torch.version.cuda, nvidia.driver_version()
        needs = (
            f"CUDA {built} (driver {DRIVERS.get(built.split('.')[0], '?')} or later)" if built else "no CUDA"
        )
        raise UserError(
            f"torch cannot use GPU {card}: {reason}. torch {torch.__version__} is built for {needs}, the "
            f"machine has driver {driver or 'unknown'}: install the torch for it (docs/operations.md, The "
            "driver and torch), or compute on the CPU with gpus: 0 for this model (--gpus 0)"
        ) from None


def quantisation(compute: torch.dtype | None = None):
    """NF4 as the authors evaluate: double quantisation, to be computed with in ``compute``, which by default
    is bf16 on a GPU, and fp32 on a CPU, where bf16 is slow."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute or (torch.bfloat16 if device().type == "cuda" else torch.float32),
    )


def load_model(
    folder: str | Path, precision: str = "fp32", trust_remote_code: bool = False
) -> PreTrainedModel:
    """The causal language model in ``folder``, in eval mode, on the GPU if there is one.

    ``precision`` is ``fp32``, ``bf16``, ``nf4`` (bitsandbytes) or ``stored``, that of the file. Weights in
    FP8 or MXFP4 become ordinary numbers. Raises UserError if the weights lack or have more tensors than the
    architecture (layers for multi-token prediction aside, which are not run, and leftovers of older
    versions), are quantised otherwise, do not fit in memory, or this machine computes NF4 wrongly (see
    ``nf4``).
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not known: write one of {', '.join(PRECISIONS)}")
    how = {"dtype": DTYPES.get(precision, "auto")}
    if precision == "nf4":
        how = {"quantization_config": quantisation(), "dtype": quantisation().bnb_4bit_compute_dtype}
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise UserError(f"{folder} is not a checkpoint: it has no config.json")
    checkpoint = Checkpoint.read(folder)
    asked = Asked(precisions={"precision": precision})
    check_quantised(checkpoint.raw_config, str(folder), asked, folder)
    config = load_config(folder, trust_remote_code)
    if quantisation_of(checkpoint.raw_config, folder):
        how["config"] = as_numbers(config)
    try:
        model, info = model_class(config).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            device_map={"": device()},
            output_loading_info=True,
            **how,
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{folder} in {precision} does not fit in memory: take precision nf4 or a larger card"
        ) from None
    n_layers = layer_count(model.config)
    unexpected = strangers(info["unexpected_keys"], checkpoint.tensors)
    info["unexpected_keys"] = [k for k in unexpected if (split_name(k)[1] or 0) < n_layers]
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(fault):
            raise UserError(f"{folder}: {fault.replace('_', ' ')} when loading: {sorted(info[fault])[:5]}")
    if precision == "nf4":
        check_nf4(portable_nf4(model))
    record(attention=getattr(model.config, "_attn_implementation", None))
    return model.eval()


def portable_nf4(model: PreTrainedModel) -> PreTrainedModel:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16: the repacked layout rounds
    to bf16, fails for widths that are no multiple of 64, and cannot be trained on. Other CPUs never do."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model
