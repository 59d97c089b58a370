"""What the header of a GGUF file (llama.cpp's format) says of its model. No torch.

The library ``gguf`` reads the same and takes seconds, because it makes an array of each token; Snakemake asks
whenever it reads the Snakefile. Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import UserError

# Types of values, by their numbers in the file, as struct's letters.
SCALARS = dict(enumerate("BbHhIif?", start=0)) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# What config.json calls what the header has under the name of the architecture.
CONFIG_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "vocab_size": "vocab_size",
}
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def read_header(path: str | Path) -> dict[str, object]:
    """The metadata of a GGUF file by key: numbers, texts, and of each array its length. The names of its
    tensors are under ``tensors``.

    Raises UserError for a file that is missing, is no GGUF of version 2 or 3, ends early, or is one of
    several parts.
    """
    path = Path(path)
    if part := _PART.fullmatch(path.name):
        raise UserError(
            f"{path} is one of {int(part[3])} parts; join them with llama.cpp: "
            f"llama-gguf-split --merge {part[1]}-00001-of-{part[3]}.gguf {part[1]}.gguf"
        )
    try:
        with open(path, "rb") as file:
            return _Reader(file).header(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (struct.error, UnicodeDecodeError, OverflowError, MemoryError):
        raise UserError(f"{path} is damaged: its header ends early; download it again") from None


class _Reader:
    """The values of a GGUF header, one after another."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def header(self, path: Path) -> dict[str, object]:
        if self.file.read(4) != b"GGUF":
            raise UserError(f"{path} is no GGUF file")
        version = self.number("I")
        if version not in (2, 3):
            raise UserError(f"{path} is GGUF of version {version}; versions 2 and 3 are read")
        tensors, entries = self.number("Q"), self.number("Q")
        found: dict[str, Any] = {}
        for _ in range(entries):
            key = self.text()
            found[key] = self.value(self.number("I"))
        found["tensors"] = [self.tensor() for _ in range(tensors)]
        return found

    def number(self, letter: str) -> Any:
        size = struct.calcsize("<" + letter)
        return struct.unpack("<" + letter, self.file.read(size))[0]

    def text(self) -> str:
        return self.bytes(self.number("Q")).decode()

    def bytes(self, size: int) -> bytes:
        found = self.file.read(size)
        if len(found) < size:
            raise struct.error
        return found

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(SCALARS[kind]) if kind in SCALARS else self.fail()
        inner, length = self.number("I"), self.number("Q")
        if inner == STRING:
            for _ in range(length):
                self.bytes(self.number("Q"))
        elif inner in SCALARS:
            self.bytes(length * struct.calcsize("<" + SCALARS[inner]))
        else:
            self.fail()
        return length

    def tensor(self) -> str:
        name = self.text()
        for _ in range(self.number("I")):
            self.number("Q")
        self.number("I"), self.number("Q")
        return name

    def fail(self) -> NoReturn:
        raise struct.error


def config_of(header: Mapping[str, Any]) -> dict[str, object]:
    """The shape of the model as its config.json would say it, for estimates: not a config to load."""
    kind = header.get("general.architecture")
    found = {ours: header[key] for name, ours in CONFIG_KEYS.items() if (key := f"{kind}.{name}") in header}
    found.setdefault("vocab_size", header.get("tokenizer.ggml.tokens", 0))
    return found | {
        "model_type": kind,
        "tie_word_embeddings": "output.weight" not in header["tensors"],
    }
