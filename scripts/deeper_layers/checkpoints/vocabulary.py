"""How many tokens a checkpoint has an embedding for, from the headers of its files. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UserError
from ..runtime.files import read_json
from .config_keys import decoder_part
from .safetensors_io import read_header

EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in)\.weight$")


def embedding_rows(folder: str | Path) -> int | None:
    """The number of rows of the token embedding in ``folder``, else what its config.json says; None if there
    is neither."""
    folder, rows, said = Path(folder), [], None
    try:
        config = read_json(folder / "config.json")
        said = decoder_part(config).get("vocab_size")
        for file in _files(folder):
            tensors = read_header(file).tensors
            rows += [t.shape[0] for n, t in tensors.items() if EMBEDDING.search(n) and len(t.shape) == 2]
    except (
        OSError,
        ValueError,
        AttributeError,
        UserError,
    ):  # told by those who load it
        return said
    return max(rows, default=said)


def _files(folder: Path) -> list[Path]:
    """The weight files with an embedding."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    weight_map = read_json(folder / "model.safetensors.index.json")["weight_map"]
    return sorted({folder / file for name, file in weight_map.items() if EMBEDDING.search(name)})
