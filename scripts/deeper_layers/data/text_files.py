"""The documents of one text file: plain text, JSON records or Parquet, of which only one field is read.

A plain text is one document, its lines ended by ``\\n`` whatever they end with in the file; a JSON file has a
record a line, or is one list of records. All are UTF-8, with or without a byte order mark. Every fault is a
UserError of one line with the file's name and the place.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import UserError
from .conversations import as_conversation
from .local_source import PARQUET, PLAIN, File, check_number, find

# How a file that is no UTF-8 text begins, and what it is; UTF-32 before UTF-16, which begins alike.
STARTS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "packed by gzip: rename it to end in .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it",
    b"BZh": "packed by bzip2: unpack it",
    b"\xfd7zXZ": "packed by xz: unpack it",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"PAR1": "Parquet: rename it to end in .parquet",
    b"%PDF-": "a PDF: convert it",
}
NAMES = {list: "a list", dict: "an object", type(None): "null", bool: "a boolean", str: "a text"}
MARGIN = 1 << 20  # bytes that a first record may be long to be looked at beforehand


def documents(file: File, field: str, columns: set[str]) -> Iterator[str]:
    """The text of each document of a file, empty ones included; adds the names of the fields to ``columns``.

    Raises UserError for what cannot be read, and for a record whose ``field`` is not there or is neither text
    nor a conversation.
    """
    with _told(file.path):
        if file.format == PARQUET:
            yield from _parquet(file.path, field, columns)
        elif file.format == PLAIN:
            yield _plain(file.path)
        else:
            for where, record, raw in _records(file.path):
                yield _text(where, record, field, raw)
                columns.update(record)


def check(source: str, field: str, splits: Mapping[str, str | None], asked: Mapping[str, int]) -> None:
    """Raise the UserError that reading a local source would raise, as far as that can be told at little cost:
    of its files, their splits, their first records and the most documents that they can have.

    ``asked`` has the number of documents of each of our splits that a study reads, ``splits`` what the user
    says of where they are drawn from.
    """
    found = find(source)
    theirs = found.splits(splits)
    for ours in asked:
        if ours not in theirs:
            raise found.missing(ours)
        files = found.of(theirs[ours])
        check_first(files[0], field)
        most, sharing = 0.0, {s: n for s, n in asked.items() if theirs.get(s) == theirs[ours]}
        for file in files:
            if (most := most + most_documents(file)) >= sum(sharing.values()):
                break
        else:
            check_number(source, int(most), sharing, files)


def check_first(file: File, field: str) -> None:
    """Raise the UserError that the first record of a file has, if it can be told at little cost."""
    with _told(file.path):
        if file.format == PARQUET:
            with open(file.path, "rb") as raw:
                if os.path.getsize(file.path) < 12 or raw.read(4) not in (b"PAR1", b"PARE"):
                    raise UserError(f"{file.path} is not a Parquet file, or is cut off")
        elif file.format != PLAIN:
            with _open(file.path) as raw:
                first = raw.readline(MARGIN)
            if len(first) < MARGIN and not first.lstrip().startswith(b"["):
                for where, record, line in _lines(file.path, iter([first])):
                    _text(where, record, field, line)


def most_documents(file: File) -> float:
    """How many documents a file can have at most, as far as that costs little; else infinity."""
    if file.format == PLAIN:
        return 1
    if file.format == PARQUET or file.path.name.lower().endswith(".gz"):
        return math.inf
    if os.path.getsize(file.path) > 16 * MARGIN:
        return math.inf
    data = file.path.read_bytes()
    is_list = data.lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith(b"[")
    return math.inf if is_list else sum(1 for line in data.split(b"\n") if line.strip())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Faults of packed and of unreadable files in one line."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no sound gzip file ({error}): pack or fetch it again") from None
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _open(path: Path) -> IO[bytes]:
    """A text file, unpacked, without its byte order mark. UserError if it is evidently none."""
    raw = gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")  # noqa: SIM115
    head = raw.read(8)
    for start, what in STARTS.items():
        if head.startswith(start):
            raw.close()
            how = f"{what}: convert it, as with iconv -f {what.lower()} -t utf-8" if "UTF" in what else what
            raise UserError(f"{path} is no UTF-8 text but {how}")
    raw.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
    return raw


def _decode(path: Path, data: bytes, offset: int) -> str:
    """``data``, which begins at byte ``offset`` of the (unpacked) file, as text."""
    if (nul := data.find(b"\0")) >= 0:
        raise UserError(
            f"{path}, byte {offset + nul}: a NUL, so this is UTF-16 or no text at all; convert it to UTF-8"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, byte {offset + error.start}: not UTF-8 (0x{data[error.start]:02x}); convert it, as "
            "with iconv -f latin1 -t utf-8 if that is what it is"
        ) from None


def _plain(path: Path) -> str:
    with _open(path) as raw:
        start = raw.tell()
        text = _decode(path, raw.read(), start)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _records(path: Path) -> Iterator[tuple[str, dict, bytes]]:
    """(place, record, its bytes) of each record of a JSON file: one a line, or one list of all."""
    with _open(path) as raw:
        start = raw.tell()
        first = raw.readline()
        while first and not first.strip():
            first = raw.readline()
        raw.seek(start)
        if first.lstrip().startswith(b"["):
            data = raw.read()
            for number, record in enumerate(_parse(f"{path}", _decode(path, data, start), True), 1):
                yield f"{path}, record {number}", record, data
        else:
            yield from _lines(path, raw, start)


def _lines(path: Path, lines: Iterator[bytes], offset: int = 0) -> Iterator[tuple[str, dict, bytes]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse(where, _decode(path, line, offset), line.endswith(b"\n")), line
        offset += len(line)


def _parse(where: str, text: str, ended: bool):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = "" if ended else "; the file ends there, so it may be cut off"
        raise UserError(
            f"{where}: not JSON ({error.msg}, column {error.colno}){cut}. A file has one record a line, or "
            "is one list of records"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON that can be read ({error})") from None


def _text(where: str, record, field: str, raw: bytes) -> str:
    """The text in ``field`` of a record, or a UserError."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: {_name(record)}, not an object with a field {field!r}")
    if field not in record:
        raise UserError(f"{where}: no field {field!r}; the fields are {', '.join(record) or 'none'}")
    text = record[field]
    if (messages := as_conversation(text)) is not None:
        return messages
    if not isinstance(text, str):
        raise UserError(_no_text(where, field, text, record))
    if b"\\u" in raw:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{where}: the text has half of a character (a lone \\ud8.. escape)") from None
    return text


def _no_text(where: str, field: str, value, fields) -> str:
    first = value[0] if isinstance(value, list) and value else value
    chat = isinstance(first, dict) and "content" in first
    hint = "each message needs a role and a content, both text" if chat else "give the one that holds text"
    hint = "leave such records out, or write an empty text" if value is None else hint
    return f"{where}: the field {field!r} is {_name(value)}, not text; {hint} (fields: {', '.join(fields)})"


def _name(value) -> str:
    return NAMES.get(type(value), "a number")


def _parquet(path: Path, field: str, columns: set[str]) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            columns.update(schema.names)
            _check_column(path, schema, field)
            for batch in file.iter_batches(1024, columns=[field]):
                for value in batch.column(field).to_pylist():
                    row += 1
                    text = value if isinstance(value, str) else as_conversation(value)
                    if text is None:
                        raise UserError(_no_text(f"{path}, row {row}", field, value, schema.names))
                    yield text
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no sound Parquet file (after row {row}: {said[0]})") from None


def _check_column(path: Path, schema, field: str) -> None:
    """UserError unless the column is one of text."""
    from pyarrow import types

    if field not in schema.names:
        raise UserError(f"{path}: no field {field!r}; the fields are {', '.join(schema.names)}")
    type_ = schema.field(field).type
    value = type_.value_type if types.is_dictionary(type_) else type_
    if types.is_list(value) and types.is_struct(value.value_type):
        return  # of messages, as each row shows
    if not (types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)):
        raise UserError(
            f"{path}: the field {field!r} is of type {type_}, not text (fields: {', '.join(schema.names)})"
        )
