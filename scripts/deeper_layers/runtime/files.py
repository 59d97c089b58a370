"""Files that are whole or absent (written under another name, then renamed), and locks that end with their
process."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, delete it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: str | Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder inside ``folder``; on success its files move to ``folder``, the one named
    ``last`` after all others. For libraries that write several files themselves."""
    folder = Path(folder)
    temporary = folder / f".{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process: in containers numbers come again
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == last):
            _flush(file)
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    """Bring a file to the disk: if the machine dies after the rename, it must not be there but empty."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def lock(path: str | Path, wait: bool = True) -> IO | None:
    """Lock the file ``path`` (made if need be) until what is returned is closed or this process ends, however
    it ends. If another process holds it: wait, or return None. Where the file system has no locks, no one
    is kept out."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a")  # noqa: SIM115 (open, it holds the lock)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return file


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as indented JSON; what JSON does not know is written as its ``str``."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text())


def sha256(path: str | Path) -> str:
    """Hex digest of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
