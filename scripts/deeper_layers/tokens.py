"""Tokenised documents in one memory-mapped file that every stage of a model shares.

The file is a safetensors file with ``ids`` (int32, [N], all documents end to end) and ``offsets``
(int64, [D + 1]): document d is ``ids[offsets[d]:offsets[d + 1]]``. A small JSON summary of the same name
lies beside it; either path names the pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .errors import UserError
from .files import replacing, sha256, write_json


class Tokens:
    """Read-only view of a token file; only the documents asked for are read from disk."""

    def __init__(self, path: str | Path):
        self.path = Path(path).with_suffix(".safetensors")
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist: make it with scripts/tokenise.py (rule tokenise)")
        with open(self.path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))

        def column(name: str, dtype) -> np.ndarray:
            start, end = header[name]["data_offsets"]
            shape = ((end - start) // np.dtype(dtype).itemsize,)
            if shape == (0,):
                return np.empty(0, dtype)
            return np.memmap(self.path, dtype, mode="r", offset=8 + size + start, shape=shape)

        self.ids = column("ids", np.int32)
        self.offsets = np.array(column("offsets", np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        """Token ids of one document, int64 [T]."""
        if not 0 <= document < len(self):
            raise IndexError(document)
        return self.ids[self.offsets[document] : self.offsets[document + 1]].astype(np.int64)

    def first(self, samples: int, length: int) -> list[np.ndarray]:
        """The first ``samples`` documents, each cut to ``length`` tokens. UserError if there are fewer."""
        if samples > len(self):
            raise UserError(
                f"{self.path} holds {len(self)} documents, not {samples}: lower the number asked for"
            )
        return [self[d][:length] for d in range(samples)]

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of every document, int64 [D]."""
        return np.diff(self.offsets)


def write_tokens(path: str | Path, documents: Iterable[Iterable[int]]) -> None:
    """Write a token file and its summary. Empty documents are left out."""
    from safetensors.numpy import save_file

    ids = [np.asarray(d, dtype=np.int32) for d in documents]
    ids = [d for d in ids if len(d)]
    if not ids:
        raise UserError(f"no text to tokenise for {path}: every document is empty")
    offsets = np.concatenate([[0], np.cumsum([len(d) for d in ids])]).astype(np.int64)
    path = Path(path).with_suffix(".safetensors")
    with replacing(path) as aside:
        save_file({"ids": np.concatenate(ids), "offsets": offsets}, aside)
    summary = {"documents": len(ids), "tokens": int(offsets[-1]), "sha256": sha256(path)}
    write_json(path.with_suffix(".json"), summary)


def read_texts(path: str | Path) -> Iterator[str]:
    """The ``text`` of every line of a JSONL file."""
    with open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)["text"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise UserError(f'{path}, line {number}: not a JSON object with a "text"') from None


def tokenise(tokenizer, texts: Iterable[str], batch: int = 1000) -> Iterator[list[int]]:
    """Token ids of each text, whole, with the special tokens that the tokenizer itself adds.

    The paper does not say how BOS is handled; ours is the tokenizer's own default, as in lm-eval.
    """
    from itertools import islice

    texts = iter(texts)
    while some := list(islice(texts, batch)):
        yield from tokenizer(some)["input_ids"]
