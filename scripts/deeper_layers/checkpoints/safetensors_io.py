"""Read safetensors headers strictly and write new files by copying byte ranges of old ones.

No tensor is ever loaded: a 70B checkpoint is cut in the memory of its headers. The format is that of
the safetensors library: eight bytes of little-endian header length, a JSON header, then the bytes of
all tensors without gap or overlap.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..runtime.files import atomic_write

BITS = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"], 8),
    **dict.fromkeys(["F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 64),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    "F4": 4,
}  # of one element, by dtype name; the smallest ones are stored packed
HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors library
_PAGE = 4096  # bytes, of memory and of most file systems
_PIECE = 1 << 26  # bytes copied at a time
_NO_COPY_RANGE = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


@dataclass(frozen=True)
class Tensor:
    """A tensor's place: bytes start..end (end excluded) of the file ``path``."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its tensors by name, in the order of their bytes, and its metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] | None


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, checked in full against the file.

    Raises UserError, naming the file and the fault, unless the header is well-formed and its tensors
    fill the rest of the file exactly: no gap, no overlap, each as long as its dtype and shape say.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(path, file.read(8), size)
            raw = file.read(length)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    header = _parse(path, raw)
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not _is_text_mapping(metadata):
        raise _fault(path, "its __metadata__ does not map strings to strings")
    tensors = [(name, _tensor(path, name, entry, 8 + length)) for name, entry in header.items()]
    tensors.sort(key=lambda item: (item[1].start, item[1].end))
    _check_filled(path, tensors, 8 + length, size)
    return Header(dict(tensors), metadata)


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> str:
    """Write a safetensors file with ``tensors`` (in that order), their bytes copied from where they are,
    and return its sha256.

    The file is written under another name and renamed. Memory does not depend on the size of the tensors.
    Raises UserError if a source turns out shorter than its header said.
    """
    header: dict[str, dict] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.bytes
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    first = next((t.start for t in tensors.values()), 0)
    # The bytes lie in their pages as they lay in their source: where the file system can share pages between
    # files (XFS, Btrfs), they are shared instead of copied.
    raw += b" " * ((first - 8 - len(raw)) % _PAGE)
    digest = hashlib.sha256()
    # While a piece is copied, those before it are hashed and brought to the disk by two threads: nothing of
    # this needs the interpreter's lock.
    with (
        atomic_write(path) as temporary,
        open(temporary, "w+b", buffering=0) as out,
        ThreadPoolExecutor(1) as hasher,
        ThreadPoolExecutor(1) as flusher,
    ):
        at = out.write(struct.pack("<Q", len(raw)) + raw)
        jobs = [hasher.submit(_hash, digest, out.fileno(), 0, at)]
        flush = None
        for source, start, count in _pieces(tensors.values()):
            with open(source, "rb", buffering=0) as file:
                if copy_range(file.fileno(), out.fileno(), start, count) < count:
                    raise _fault(source, "it became shorter while it was copied")
            jobs.append(hasher.submit(_hash, digest, out.fileno(), at, count))
            at += count
            if flush is None or flush.done():
                flush = flusher.submit(os.fdatasync, out)
                jobs.append(flush)
        os.fsync(out)
        for job in jobs:
            job.result()  # which raises what went wrong: a fault of the disk is told only once
    return digest.hexdigest()


def _hash(digest: hashlib._Hash, file: int, start: int, count: int) -> None:
    """Feed ``count`` bytes at ``start`` of a file descriptor to ``digest``."""
    while count and (data := os.pread(file, min(count, 1 << 20), start)):
        digest.update(data)
        start, count = start + len(data), count - len(data)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a whole file in the kernel, written under another name and renamed."""
    with (
        atomic_write(target) as temporary,
        open(source, "rb") as file,
        open(temporary, "wb", buffering=0) as out,
    ):
        copy_range(file.fileno(), out.fileno(), 0, os.fstat(file.fileno()).st_size)


def copy_range(source: int, target: int, start: int, count: int) -> int:
    """Append ``count`` bytes at ``start`` of file descriptor ``source`` to ``target``; return how many
    there were. In the kernel where it can (copy_file_range, else sendfile), else through a buffer."""
    done = 0
    for copy in (_copy_file_range, _sendfile, _read_write):
        try:
            while done < count:
                step = copy(source, target, start + done, count - done)
                if not step:
                    return done
                done += step
            return done
        except OSError as error:
            if error.errno not in _NO_COPY_RANGE or copy is _read_write:
                raise
    return done


def _copy_file_range(source: int, target: int, start: int, count: int) -> int:
    if not hasattr(os, "copy_file_range"):
        raise OSError(errno.ENOSYS, "no copy_file_range")
    return os.copy_file_range(source, target, count, offset_src=start)


def _sendfile(source: int, target: int, start: int, count: int) -> int:
    if not hasattr(os, "sendfile"):
        raise OSError(errno.ENOSYS, "no sendfile")
    return os.sendfile(target, source, start, count)


def _read_write(source: int, target: int, start: int, count: int) -> int:
    return os.write(target, os.pread(source, min(count, 1 << 20), start))


def _pieces(tensors: Iterable[Tensor]) -> Iterator[tuple[Path, int, int]]:
    """(file, start, count) of the tensors' bytes: neighbours joined, then up to the next page, then in
    pieces of at most _PIECE."""
    runs: list[tuple[Path, int, int]] = []
    for t in tensors:
        if runs and runs[-1][0] == t.path and runs[-1][2] == t.start:
            runs[-1] = (t.path, runs[-1][1], t.end)
        else:
            runs.append((t.path, t.start, t.end))
    for path, start, end in runs:
        while start < end:
            count = min(-start % _PAGE or _PIECE, end - start)
            yield path, start, count
            start += count


def _fault(path: Path, what: str) -> UserError:
    return UserError(f"{path} is not a sound safetensors file: {what}; download or copy it again")


def _header_length(path: Path, raw: bytes, size: int) -> int:
    if len(raw) < 8:
        raise _fault(path, f"it has only {size} bytes")
    (length,) = struct.unpack("<Q", raw)
    if length > HEADER_LIMIT:
        raise _fault(path, f"its header claims {length} bytes, over the limit of {HEADER_LIMIT}")
    if length > size - 8:
        raise _fault(path, f"its header claims {length} bytes but the file has {size}")
    return length


def _parse(path: Path, raw: bytes) -> dict:
    def unique(pairs: list[tuple[str, object]]) -> dict:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        header = json.loads(raw.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _fault(path, "its header is not a JSON object")
    if not all(map(_is_text, header)):
        raise _fault(path, "a name in its header is not text")
    return header


def _is_text(value: object) -> bool:
    """Whether ``value`` is a string that UTF-8 can write: JSON can escape half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_text_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(text) for item in value.items() for text in item)


def _is_sizes(value: object) -> bool:
    """Whether ``value`` is a list of integers that are not negative (bool is no integer here)."""
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _tensor(path: Path, name: str, entry: object, data: int) -> Tensor:
    """The entry of one tensor, its offsets counted from the start of the file (``data`` bytes on)."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _fault(path, f"tensor {name!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _fault(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _is_sizes(shape):
        raise _fault(path, f"tensor {name!r} has the shape {shape!r}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _fault(path, f"tensor {name!r} has the data_offsets {offsets!r}")
    if math.prod(shape) * BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise _fault(
            path, f"tensor {name!r} has {offsets[1] - offsets[0]} bytes, not those of {dtype} {shape}"
        )
    return Tensor(path, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _check_filled(path: Path, tensors: list[tuple[str, Tensor]], data: int, size: int) -> None:
    """Raise unless the tensors, sorted by place, fill bytes data..size one after the other."""
    end = data
    for name, tensor in tensors:
        if tensor.start != end:
            fault = "overlaps the one before" if tensor.start < end else "leaves a gap before it"
            raise _fault(path, f"tensor {name!r} {fault}")
        end = tensor.end
    if end != size:
        fault = "it is truncated" if end > size else "bytes follow its last tensor"
        raise _fault(path, f"{fault} ({size} bytes, {end} expected)")
