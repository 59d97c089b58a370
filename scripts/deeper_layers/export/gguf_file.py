"""An exported checkpoint as a GGUF file, by llama.cpp's own converter and quantiser."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

from ..errors import UserError
from ..runtime.files import atomic_write, read_json
from ..settings.formats import CONVERTED, QUANTISED

log = logging.getLogger(__name__)

MISSING = "{} is not installed: pip install -r envs/serving.txt (docs/serving.md)"


def write_gguf(checkpoint: str | Path, kind: str, target: str | Path) -> None:
    """Write the checkpoint in the folder ``checkpoint`` to the GGUF file ``target`` with weights of the type
    ``kind``, one of ``settings.formats.GGUF``.

    A tokenizer of whole words, which llama.cpp has none of, is left out: the file then takes token ids only.

    Raises UserError if a package of envs/serving.txt is missing, and for an architecture or a tokenizer that
    llama.cpp's converter does not know.
    """
    checkpoint, target = Path(checkpoint), Path(target)
    if kind in CONVERTED:
        with atomic_write(target) as temporary:
            _convert(checkpoint, kind, temporary)
        return
    llama_cpp = _engine()
    sixteen_bits = target.with_name(f".{target.name}.f16")
    try:
        _convert(checkpoint, "f16", sixteen_bits)
        with atomic_write(target) as temporary:
            _quantise(llama_cpp, sixteen_bits, kind, temporary)
    finally:
        sixteen_bits.unlink(missing_ok=True)


def _convert(checkpoint: Path, kind: str, target: Path) -> None:
    try:
        from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    except ImportError as error:
        raise UserError(MISSING.format(f"llama.cpp's converter ({error.name})")) from None
    import gguf
    import torch

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    hparams = ModelBase.load_hparams(checkpoint, False)
    architecture = get_model_architecture(hparams, ModelType.TEXT)
    try:
        known = get_model_class(architecture)
    except NotImplementedError:
        raise UserError(f"llama.cpp's converter does not know {architecture}: no GGUF file of it") from None
    with torch.inference_mode():
        model = known(checkpoint, types[kind], target)
        if _has_whole_words(checkpoint):
            log.warning("llama.cpp has no tokenizer of whole words: the file will take token ids only")
            model.set_vocab = model._set_vocab_none
        try:
            model.write()
        except NotImplementedError as error:
            raise UserError(f"llama.cpp's converter: {error}") from None


def _has_whole_words(checkpoint: Path) -> bool:
    path = checkpoint / "tokenizer.json"
    return path.is_file() and read_json(path)["model"]["type"] == "WordLevel"


def _engine() -> ModuleType:
    try:
        import llama_cpp
    except ImportError:
        raise UserError(MISSING.format("llama.cpp (llama-cpp-python)")) from None
    return llama_cpp


def _quantise(llama_cpp: ModuleType, source: Path, kind: str, target: Path) -> None:
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{QUANTISED[kind]}")
    fault = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if fault:
        raise UserError(f"llama.cpp could not quantise {source} to {kind}: its lines above say why")
