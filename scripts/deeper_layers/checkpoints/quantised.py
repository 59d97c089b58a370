"""Checkpoints whose weights are quantised already: which ones are read, and what to give instead of others.

A quantised weight is neither cut nor healed as it is: whatever can be turned back into ordinary numbers while
it is loaded is, everything else is refused. No torch, no transformers.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Weights that transformers turns back into ordinary numbers while it loads them.
DEQUANTISED = {"fp8": "FP8", "mxfp4": "MXFP4"}
# Files beside config.json in which other programs say how they quantised.
_SIDE_FILES = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ", "hf_quant_config.json": "ModelOpt"}
_NAMES = {
    "aqlm": "AQLM",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "fbgemm_fp8": "FBGEMM FP8",
    "gguf": "GGUF",
    "gptq": "GPTQ",
    "hqq": "HQQ",
    "modelopt": "ModelOpt",
    "quanto": "Quanto",
    "vptq": "VPTQ",
}
# What quantising programs store beside a weight, or in place of it.
_PACKED = re.compile(
    r"\.(qweight|qzeros|g_idx|weight_packed|weight_shape|weight_scale(_inv)?|SCB|weight_format|W_q"
    r"|codebooks|scale_weight|weight\.(absmax|quant_map|quant_state\..*|nested_absmax))$"
)


@dataclass(frozen=True)
class Asked:
    """What is asked of a model: ``lengths`` in tokens and ``precisions``, by the setting that says so, and
    the settings by which weights are ``streamed``."""

    lengths: Mapping[str, int] = field(default_factory=dict)
    precisions: Mapping[str, str] = field(default_factory=dict)
    streamed: Iterable[str] = ()


def quantisation_of(config: Mapping, folder: str | Path | None = None) -> str | None:
    """How the weights are quantised, None if they are not: ``fp8``, ``mxfp4``, or the name of another way."""
    said = config.get("quantization_config") or config.get("compression_config")
    text = config.get("text_config")
    if not said and isinstance(text, Mapping):
        said = text.get("quantization_config")
    if isinstance(said, Mapping):
        is_bnb = "load_in_4bit" in said or "load_in_8bit" in said
        method = str(said.get("quant_method") or ("bitsandbytes" if is_bnb else "unknown"))
        if method in ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"):
            return f"bitsandbytes, {8 if said.get('load_in_8bit') or method.endswith('8bit') else 4} bits"
        return method if method in DEQUANTISED else _NAMES.get(method, method)
    for file, method in _SIDE_FILES.items():
        if folder is not None and (Path(folder) / file).is_file():
            return f"{method}, says {file}"
    return None


def check_quantised(
    config: Mapping,
    name: str,
    asked: Asked,
    folder: str | Path | None = None,
    tensors: Iterable[str] = (),
) -> None:
    """Raise UserError for a checkpoint that is quantised in a way which cannot be cut and healed, or is asked
    for in a precision that it cannot be loaded in. ``tensors``, their names, tell it where no file does."""
    how = quantisation_of(config, folder)
    if how is None and (packed := next(filter(_PACKED.search, tensors), None)):
        how = f"it holds {packed}"
    if how is None:
        return
    original = _original(folder)
    instead = f"give the model that it was made from{original and f', {original}'}"
    if how not in DEQUANTISED:
        raise UserError(
            f"{name}: the checkpoint is quantised already ({how}), and such weights are neither cut nor "
            f"healed; {instead}, and let precision: nf4 quantise it"
        )
    loaded = f"{name}: the checkpoint is quantised already ({DEQUANTISED[how]}) and is loaded as bf16 or fp32"
    for where, precision in asked.precisions.items():
        if precision == "nf4":
            raise UserError(f"{where}: nf4: {loaded}; write precision bf16, or {instead}")
    for where in asked.streamed:
        raise UserError(f"{where}: {loaded} only as a whole; set stream to false, or {instead}")


def _original(folder: str | Path | None) -> str:
    """What the head of a README says that the model was made from, else nothing."""
    try:
        head = (Path(folder) / "README.md").read_text(errors="replace")[:10_000] if folder else ""
    except OSError:
        return ""
    found = re.search(r"^base_model:\s*(?:-\s*)?[\"']?([\w.-]+/[\w.-]+)", head, re.MULTILINE)
    return found[1] if found and head.startswith("---") else ""


def as_numbers(config: PretrainedConfig) -> PretrainedConfig:
    """A config that transformers loaded, told to turn quantised weights back into numbers, where there are
    any of a kind for which it can."""
    said = getattr(config, "quantization_config", None)
    if isinstance(said, Mapping) and said.get("quant_method") in DEQUANTISED:
        config = copy.deepcopy(config)
        config.quantization_config = {**said, "dequantize": True}
    return config


def cut_exceptions(config: Mapping, layers: str, place: Mapping[int, int]) -> dict:
    """A copy of ``config``, the content of a config.json, for a cut: modules that it names as not quantised
    get the new numbers of their layers, which are in a list called ``layers``. ``place`` says where each kept
    layer goes; what names another is left out."""
    said = config.get("quantization_config")
    if not isinstance(said, Mapping):
        return dict(config)
    number = re.compile(rf"((?:^|\.){re.escape(layers)}\.)(\d+)(?=\.|$)")

    def renamed(names: list) -> list:
        kept = []
        for name in names:
            found = number.search(name) if isinstance(name, str) else None
            if found is None:
                kept.append(name)
            elif int(found[2]) in place:
                kept.append(number.sub(rf"\g<1>{place[int(found[2])]}", name, count=1))
        return kept

    changed = {k: renamed(v) if isinstance(v, list) else v for k, v in said.items()}
    return {**config, "quantization_config": changed}
