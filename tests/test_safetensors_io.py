"""The header reader and the byte-copying writer, against the safetensors library and against nonsense."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from deeper_layers.checkpoints import safetensors_io
from deeper_layers.checkpoints.safetensors_io import read_header, write
from deeper_layers.errors import UserError

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16]
DTYPES += [torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    found = {
        f"layers.{i}.{dtype}": torch.randint(0, 2, (3, i + 1), generator=generator).to(dtype)
        for i, dtype in enumerate(DTYPES)
    }
    return found | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "ünïcode": torch.ones(3)}


def raw_file(path, header, data=b"", length=None):
    """A file of that header (a value for JSON, or bytes) and data; ``length`` is what it claims to be."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_header_says_what_the_library_says(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    header = read_header(tmp_path / "a.safetensors")
    assert header.metadata == {"format": "pt"}
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(header.tensors) == set(file.keys())
        for name, tensor in header.tensors.items():
            assert tensor.dtype == file.get_slice(name).get_dtype()
            assert list(tensor.shape) == file.get_slice(name).get_shape()
            assert tensor.parameters == tensors[name].numel()
            assert tensor.bytes == tensors[name].numel() * tensors[name].element_size()


def test_rewritten_file_loads_in_the_library(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt", "note": "kept"})
    save_file({"other": torch.arange(5)}, tmp_path / "b.safetensors")
    a, b = read_header(tmp_path / "a.safetensors"), read_header(tmp_path / "b.safetensors")
    kept = {f"new.{n}": t for i, (n, t) in enumerate(a.tensors.items()) if i % 3} | b.tensors
    digest = write(tmp_path / "out/c.safetensors", kept, a.metadata)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["c.safetensors"]
    assert digest == hashlib.sha256((tmp_path / "out/c.safetensors").read_bytes()).hexdigest()
    loaded = load_file(tmp_path / "out/c.safetensors")
    assert set(loaded) == set(kept) and "other" in loaded
    for name, tensor in loaded.items():
        expected = tensors.get(name.removeprefix("new."), torch.arange(5))
        assert tensor.dtype == expected.dtype and tensor.shape == expected.shape
        assert torch.equal(tensor.view(-1).view(torch.uint8), expected.view(-1).view(torch.uint8))
    again = read_header(tmp_path / "out/c.safetensors")
    assert again.metadata == {"format": "pt", "note": "kept"}
    assert min(t.start for t in again.tensors.values()) % 8 == 0


def test_all_tensors_in_order_give_the_librarys_file(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors", header.tensors, header.metadata)
    assert read_header(tmp_path / "b.safetensors").tensors.keys() == header.tensors.keys()
    start = next(iter(header.tensors.values())).start
    assert (tmp_path / "b.safetensors").read_bytes()[-100:] == (tmp_path / "a.safetensors").read_bytes()[
        -100:
    ]
    assert (tmp_path / "b.safetensors").stat().st_size - (
        tmp_path / "a.safetensors"
    ).stat().st_size <= 8 + start


@pytest.mark.parametrize("missing", [[], ["copy_file_range"], ["copy_file_range", "sendfile"]])
def test_copies_where_system_calls_are_missing(tmp_path, monkeypatch, missing):
    for call in missing:
        monkeypatch.delattr(os, call)
    monkeypatch.setattr(safetensors_io, "_PIECE", 1000)  # several pieces
    tensor = torch.arange(3000)
    save_file({"x": tensor, "y": tensor + 1}, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    digest = write(tmp_path / "b.safetensors", {"z": header.tensors["y"]}, None)
    assert torch.equal(load_file(tmp_path / "b.safetensors")["z"], tensor + 1)
    assert digest == hashlib.sha256((tmp_path / "b.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def xfs(tmp_path):
    """A folder on an XFS of its own."""
    if os.getuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip("it takes root and mkfs.xfs: apt-get install xfsprogs")
    image, folder = tmp_path / "image", tmp_path / "xfs"
    folder.mkdir()
    image.touch()
    os.truncate(image, 400 << 20)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_file_system_that_shares_blocks_keeps_the_bytes_once(xfs):
    tensors = {name: torch.randn(4 << 20) for name in "abc"}  # 16 MiB each
    save_file(tensors, xfs / "full.safetensors", {"format": "pt"})

    def used() -> int:
        os.sync()
        return shutil.disk_usage(xfs).used

    before, header = used(), read_header(xfs / "full.safetensors")
    write(xfs / "cut.safetensors", {"a": header.tensors["a"], "b": header.tensors["c"]}, None)
    assert used() - before < 1 << 20
    loaded = load_file(xfs / "cut.safetensors")
    assert torch.equal(loaded["a"], tensors["a"]) and torch.equal(loaded["b"], tensors["c"])


def test_source_that_shrinks_leaves_nothing(tmp_path):
    save_file({"x": torch.arange(3000)}, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    os.truncate(tmp_path / "a.safetensors", 5000)
    with pytest.raises(UserError, match="became shorter"):
        write(tmp_path / "b.safetensors", header.tensors, None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


HUGE = 2**62
FAULTS = {
    "only 3 bytes": lambda p: p.write_bytes(b"abc"),
    "only 0 bytes": lambda p: p.write_bytes(b""),
    "claims 4611686018427387904 bytes, over the limit": lambda p: raw_file(p, {}, length=HUGE),
    "claims 1000 bytes but the file has 10": lambda p: raw_file(p, {}, length=1000),
    "not JSON": lambda p: raw_file(p, b"{nonsense"),
    "is not JSON": lambda p: raw_file(p, b'{"a":"\xff"}'),
    "not a JSON object": lambda p: raw_file(p, [1]),
    "a name in its header is not text": lambda p: raw_file(p, {"\ud800": entry()}, bytes(8)),
    "__metadata__ does not map strings": lambda p: raw_file(p, {"__metadata__": {"a": "\ud800"}}),
    "a name occurs twice": lambda p: raw_file(
        p, b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)
    ),
    "__metadata__ does not map": lambda p: raw_file(p, {"__metadata__": {"a": 1}}),
    "unknown dtype 'F31'": lambda p: raw_file(p, {"a": entry("F31")}, bytes(8)),
    "unknown dtype [": lambda p: raw_file(p, {"a": entry([])}, bytes(8)),
    "the shape [-2]": lambda p: raw_file(p, {"a": entry(shape=[-2])}, bytes(8)),
    "the shape [True]": lambda p: raw_file(p, {"a": entry(shape=[True])}, bytes(8)),
    "the data_offsets [8, 0]": lambda p: raw_file(p, {"a": entry(offsets=(8, 0))}, bytes(8)),
    "the data_offsets [0]": lambda p: raw_file(p, {"a": entry(offsets=(0,))}, bytes(8)),
    "not those of F32 [3]": lambda p: raw_file(p, {"a": entry(shape=(3,))}, bytes(8)),
    "exactly dtype, shape and data_offsets": lambda p: raw_file(p, {"a": {"dtype": "F32"}}),
    "overlaps the one before": lambda p: raw_file(p, {"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "leaves a gap before it": lambda p: raw_file(p, {"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17)),
    "it is truncated": lambda p: raw_file(p, {"a": entry()}, bytes(7)),
    "bytes follow its last tensor": lambda p: raw_file(p, {"a": entry()}, bytes(9)),
    "cannot be read": lambda p: p.mkdir(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path, fault):
    FAULTS[fault](tmp_path / "bad.safetensors")
    with pytest.raises(UserError) as error:
        read_header(tmp_path / "bad.safetensors")
    assert fault in str(error.value) and "bad.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


SIZES = {"F32": 4, "BF16": 2, "U8": 1, "I64": 8}
numbers = st.one_of(
    st.integers(-3, 40), st.integers(), st.booleans(), st.none(), st.floats(), st.text(max_size=3)
)


@st.composite
def files(draw):
    """A sound file of 0 to 4 tensors with their names, shapes and types."""
    header, data = {}, b""
    for name in draw(st.lists(st.text(max_size=4), max_size=4, unique=True)):
        if name == "__metadata__":
            continue
        dtype, shape = draw(st.sampled_from(sorted(SIZES))), draw(st.lists(st.integers(0, 3), max_size=3))
        size = SIZES[dtype] * int(np.prod(shape, dtype=int))
        header[name] = entry(dtype, shape, (len(data), len(data) + size))
        data += draw(st.binary(min_size=size, max_size=size))
    return header, data


@st.composite
def mutated(draw):
    """A file after some damage: to values of its header, to its bytes, to its length."""
    header, data = draw(files())
    for name in [n for n in header if draw(st.booleans())]:
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
        value = draw(st.one_of(numbers, st.lists(numbers, max_size=3), st.sampled_from(sorted(SIZES))))
        header[name][field] = value
    raw = json.dumps(header, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    raw += b" " * draw(st.integers(0, 9))
    length = draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw) + 20), st.integers(0, 2**64 - 1)))
    content = bytearray(struct.pack("<Q", length) + raw + data)
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    end = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    return bytes(content[:end]) + draw(st.one_of(st.just(b""), st.binary(max_size=9)))


FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@settings(FUZZ, max_examples=2000)
@given(mutated())
def test_fuzzed_file_is_refused_or_read_as_the_library_reads_it(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "fuzzed.safetensors"
    path.write_bytes(content)
    try:
        header = read_header(path)
    except UserError:
        return
    assert all(8 <= t.start <= t.end <= len(content) for t in header.tensors.values())
    with safe_open(path, "np") as file:  # whatever we accept, the library accepts
        assert set(file.keys()) == set(header.tensors)
        for name, tensor in header.tensors.items():
            assert tuple(file.get_slice(name).get_shape()) == tensor.shape
            assert file.get_slice(name).get_dtype() == tensor.dtype


@settings(FUZZ, max_examples=300)
@given(files(), st.data())
def test_any_subset_is_copied_exactly(tmp_path_factory, content, data):
    header, raw = content
    folder = tmp_path_factory.getbasetemp()
    path = raw_file(folder / "sound.safetensors", header, raw)
    try:
        found = read_header(path)
    except UserError:
        with pytest.raises(SafetensorError):  # names that are no text
            safe_open(path, "np")
        return
    kept = data.draw(st.lists(st.sampled_from(sorted(found.tensors)), unique=True) if header else st.just([]))
    write(folder / "subset.safetensors", {f"{name}!": found.tensors[name] for name in kept}, None)
    subset = read_header(folder / "subset.safetensors")
    assert list(subset.tensors) == sorted(
        (f"{n}!" for n in kept), key=lambda n: (subset.tensors[n].start, subset.tensors[n].end)
    )
    bytes_of = (folder / "subset.safetensors").read_bytes()
    for name in kept:
        start, end = header[name]["data_offsets"]
        copy = subset.tensors[f"{name}!"]
        assert bytes_of[copy.start : copy.end] == raw[start:end]
        assert list(copy.shape) == header[name]["shape"] and copy.dtype == header[name]["dtype"]
