"""A GGUF file without some of its layers: the other tensors as they are, byte for byte, in their few bits."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UserError
from ..pruning.layer_set import LayerSet
from ..runtime.files import atomic_write
from .gguf import read_header

_LAYER = re.compile(r"blk\.(\d+)\.(.*)")
# What an architecture says of its layers by their numbers, in ways that a cut would change.
_BY_NUMBER = re.compile(r"pattern|interval|interleave|leading_dense|nextn|n_layer_dense|full_attention")


def cut_gguf(source: str | Path, block: LayerSet, target: str | Path) -> None:
    """Write to ``target`` the GGUF file ``source`` without the layers of ``block``: those behind are
    renumbered, the number of layers and values for each layer follow, and all else, the tokenizer too, is
    copied.

    Raises UserError for a file that cannot be read, a block that does not fit, and an architecture that says
    of its layers by number what they are.
    """
    import gguf  # seconds

    header = read_header(source)
    kind = str(header["general.architecture"])
    for key in header:
        if key.startswith(f"{kind}.") and _BY_NUMBER.search(key):
            raise UserError(
                f"{source}: {key} says what a layer is by its number, which a cut would change; export the "
                "checkpoint and convert that with llama.cpp's convert_hf_to_gguf.py"
            )
    n_layers = int(str(header[f"{kind}.block_count"]))
    new = {old: at for at, old in enumerate(block.kept(n_layers))}
    reader = gguf.GGUFReader(source)
    with atomic_write(Path(target)) as temporary:
        writer = gguf.GGUFWriter(temporary, kind)
        for key, field in reader.fields.items():
            if key.startswith("GGUF.") or key == "general.architecture":
                continue
            value, types = field.contents(), field.types
            if key == f"{kind}.block_count":
                value = len(new)
            elif types[0] == gguf.GGUFValueType.ARRAY and key.startswith(kind) and len(value) == n_layers:
                value = [value[old] for old in new]
            writer.add_key_value(key, value, types[0], types[1] if len(types) > 1 else None)
        for tensor in reader.tensors:
            if (name := _renamed(tensor.name, new)) is not None:
                writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _renamed(name: str, new: dict[int, int]) -> str | None:
    """A tensor's name in the cut; None if it goes."""
    if (found := _LAYER.fullmatch(name)) is None:
        return name
    at = new.get(int(found[1]))
    return None if at is None else f"blk.{at}.{found[2]}"
