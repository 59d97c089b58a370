"""Tokenised documents in one memory-mapped file that every stage of a model shares.

The file is a safetensors file with ``ids`` (int32, [N], all documents end to end) and ``offsets``
(int64, [D + 1]): document d is ``ids[offsets[d]:offsets[d + 1]]``. Where there are conversations, ``learned``
(uint8, [N]) is 1 for the tokens that healing is to predict. A small JSON summary of the same name lies beside
it; either path names the pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.vocabulary import embedding_rows
from ..errors import UserError
from ..runtime.files import atomic_write, sha256, write_json
from .conversations import tokenise_conversation


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
        self.learned = column("learned", np.uint8) if "learned" in header else None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        """Token ids of one document, int64 [T]."""
        if not 0 <= document < len(self):
            raise IndexError(document)
        return self.ids[self.offsets[document] : self.offsets[document + 1]].astype(np.int64)

    def marked(self, document: int, length: int) -> np.ndarray:
        """Its first ``length`` tokens, int64 [T]; an id that healing is not to predict is ~id, which is
        negative."""
        ids = self[document][:length]
        if self.learned is None:
            return ids
        start = self.offsets[document]
        return np.where(self.learned[start : start + len(ids)], ids, ~ids)

    def first(self, samples: int, length: int) -> list[np.ndarray]:
        """The first ``samples`` documents, each cut to ``length`` tokens. UserError if there are fewer."""
        if samples > len(self):
            raise UserError(
                f"{self.path} holds {len(self)} documents, not {samples}: lower the number asked for"
            )
        return [self[d][:length] for d in range(samples)]

    def together(self, documents: int | None) -> np.ndarray:
        """The first ``documents`` (None: all) end to end, int64 [T]. UserError if there are fewer."""
        count = len(self) if documents is None else documents
        if count > len(self):
            raise UserError(
                f"{self.path} holds {len(self)} documents, not {count}: lower the number asked for"
            )
        return self.ids[: self.offsets[count]].astype(np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of every document, int64 [D]."""
        return np.diff(self.offsets)


Ids = Sequence[int]


def write_tokens(
    path: str | Path, documents: Iterable[Ids | tuple[Ids, Sequence[bool]]], **facts: Any
) -> None:
    """Write a token file and its summary, one document after the other: only lengths are kept in memory, and
    where there are conversations a byte for each token. A document is its ids, or of a conversation ids and
    which of them are learned. ``facts`` are noted in the summary.

    Empty documents are left out. Raises UserError if nothing is left.
    """
    path = Path(path).with_suffix(".safetensors")
    offsets: list[int] = [0]
    learned: bytearray | None = None  # from the first conversation on
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(b" " * HEADER)  # known when all is written
        for document in documents:
            ids, marks = document if isinstance(document, tuple) else (document, None)
            if marks is not None and learned is None:
                learned = bytearray(b"\1" * offsets[-1])
            if len(ids):
                file.write(np.asarray(ids, dtype=np.int32))
                offsets.append(offsets[-1] + len(ids))
                if learned is not None:
                    learned += b"\1" * len(ids) if marks is None else bytes(marks)
        if len(offsets) == 1:
            raise UserError(f"no text to tokenise for {path}: every document is empty")
        file.write(np.asarray(offsets, dtype=np.int64))
        file.write(learned or b"")
        file.seek(0)
        file.write(_header(offsets[-1], len(offsets), learned is not None))
    summary = {"documents": len(offsets) - 1, "tokens": offsets[-1], "sha256": sha256(path)}
    if learned is not None:
        summary["learned"] = sum(learned)
    write_json(path.with_suffix(".json"), summary | facts)


HEADER = 8 + 504  # bytes: the length of the header, and a header with room for the largest file


def _header(n_ids: int, n_offsets: int, has_learned: bool = False) -> bytes:
    """The header of a safetensors file with these numbers of ids and offsets, padded with spaces."""
    split, end = 4 * n_ids, 4 * n_ids + 8 * n_offsets
    columns = {
        "ids": {"dtype": "I32", "shape": [n_ids], "data_offsets": [0, split]},
        "offsets": {"dtype": "I64", "shape": [n_offsets], "data_offsets": [split, end]},
    }
    if has_learned:
        columns["learned"] = {"dtype": "U8", "shape": [n_ids], "data_offsets": [end, end + n_ids]}
    return (HEADER - 8).to_bytes(8, "little") + json.dumps(columns).encode().ljust(HEADER - 8)


def read_documents(path: str | Path) -> Iterator[str | list[dict[str, str]]]:
    """The ``text`` or the ``messages`` of every line of a JSONL file."""
    yield from _read(path, ("text", "messages"))


def read_texts(path: str | Path) -> Iterator[str]:
    """The ``text`` of every line of a JSONL file."""
    yield from _read(path, ("text",))


def _read(path: str | Path, keys: Sequence[str]) -> Iterator[Any]:
    with open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                yield next(record[key] for key in keys if key in record)
            except (json.JSONDecodeError, StopIteration, TypeError):
                raise UserError(f'{path}, line {number}: not a JSON object with a "text"') from None


class NoTokenizer(UserError):
    """A folder without a tokenizer that can be read."""


def load_tokenizer(folder: str | Path, trust_remote_code: bool = False):
    """The tokenizer in ``folder``; its padding token is the end-of-text token if it has none. Raises
    NoTokenizer if there is none or it cannot be read, and UserError if it has tokens that the model's
    embedding has no row for.
    """
    from transformers import AutoTokenizer  # here, because reading tokens needs no transformers

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # tokenizers raise whatever they like
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise NoTokenizer(
            f"{folder} has no tokenizer that transformers reads ({lines[0]}); put the tokenizer.json and "
            "tokenizer_config.json of the model beside its config.json"
        ) from None
    _check_ids(tokenizer, folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_ids(tokenizer, folder: str | Path) -> None:
    """Raise UserError if a token's id is beyond the embedding of the checkpoint in ``folder``, if one is."""
    rows = embedding_rows(folder)
    beyond = {} if rows is None else {t: i for t, i in tokenizer.get_vocab().items() if i >= rows}
    if beyond:
        first, last = min(beyond, key=beyond.get), max(beyond.values())
        raise UserError(
            f"{folder}: the tokenizer has ids up to {last}, but the embedding has rows only for 0 to "
            f"{rows - 1}: there is none for {first!r}{', ...' * (len(beyond) > 1)}; take "
            "the tokenizer that the model was trained with, or save the model again after "
            f"model.resize_token_embeddings({last + 1})"
        )


def tokenise(
    tokenizer, documents: Iterable[str | list[dict[str, str]]], batch: int = 1000
) -> Iterator[list[int] | tuple[list[int], list[bool]]]:
    """Token ids of each text, whole, with the special tokens that the tokenizer itself adds; of a list of
    messages ids and which of them are learned (``conversations``).

    The paper does not say how BOS is handled; ours is the tokenizer's own default, as in lm-eval.
    """
    for is_text, some in groupby(documents, lambda document: isinstance(document, str)):
        if not is_text:
            yield from (tokenise_conversation(tokenizer, messages) for messages in some)
            continue
        while texts := list(islice(some, batch)):
            yield from tokenizer(texts)["input_ids"]
