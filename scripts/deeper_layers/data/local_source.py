"""Which local files a text is read from, and which of them are for training, calibration and validation.

A source is a file, a folder or a pattern such as ``texts/**/*.jsonl``. Nothing is dropped in silence: several
formats in one folder, or files with and without the name of a split, are refused; what else is left out is
listed. Pure Python and quick, since a study is checked by it while the Snakefile is read.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..settings.texts import SPLITS

ALL = "all"  # every file, whatever its name
PYTHON = "python"  # the source that python_english has
MODEL = "model"  # the source of what the uncut model writes itself
PLAIN, RECORDS, PARQUET = "one document a file", "JSON records", "Parquet"
FORMATS = dict.fromkeys((".txt", ".text", ".md", ".markdown"), PLAIN)
FORMATS |= dict.fromkeys((".jsonl", ".ndjson", ".json"), RECORDS) | {".parquet": PARQUET}
# Other formats that hold text, or packed text: beside files that are read they are no mere company.
FOREIGN = {
    *(".csv", ".tsv", ".arrow", ".feather", ".orc", ".avro", ".pkl", ".npy", ".npz", ".h5", ".db", ".sqlite"),
    *(".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".html", ".htm", ".xml", ".tex"),
    *(".rst", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".tar", ".tgz", ".7z", ".gz"),
}
READ = ".txt, .md, .jsonl, .json (each also with .gz) and .parquet"
ABOUT = re.compile(r"(readme|licen[sc]e|citation|changelog|notice|copying|dataset_infos?)\b", re.IGNORECASE)
HUB_ID = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)
# Words in the name of a file or folder that say which split it is, as `datasets` knows them.
WORDS = dict.fromkeys(("train", "training"), "train") | {"calibration": "calibration", "test": "test"}
WORDS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
WORDS |= dict.fromkeys(("testing", "eval", "evaluation"), "test")


@dataclass(frozen=True)
class File:
    """A file of a source; ``name`` is its path inside the source, ``split`` what that says, if it does."""

    path: Path
    name: str
    format: str
    split: str | None


@dataclass(frozen=True)
class Source:
    """The ``files`` that a local source is read from, all of one format, and the names of the ``others``."""

    source: str
    files: tuple[File, ...]
    others: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        """The splits that names of files say."""
        return sorted({file.split for file in self.files if file.split})

    def of(self, split: str) -> list[File]:
        """The files of one split, or of all."""
        return [file for file in self.files if split in (ALL, file.split)]

    def splits(self, settings: Mapping[str, str | None]) -> dict[str, str]:
        """The split of the source that each of ours is drawn from; one of ours that has none is not in it.

        ``settings`` is what the user asks for, ours to theirs. Without it: the files' own train, calibration
        (or validation) and validation, or all files if they name one split or none. Raises UserError for a
        split that no file names, and where some files would be read for no split, or for two.
        """
        asked = {ours: WORDS.get(theirs, theirs) for ours, theirs in settings.items() if theirs}
        if not self.named:
            asked = {ours: ALL if theirs == "train" else theirs for ours, theirs in asked.items()}
        for ours, theirs in asked.items():
            if theirs != ALL and theirs not in self.named:
                raise UserError(
                    f"{self.source}: no file is named {settings[ours]!r} (for {ours}); {self._choice()}"
                )
        if len(self.named) < 2:
            found = dict.fromkeys(SPLITS, *self.named or [ALL]) | asked
        else:
            found = {ours: ours for ours in SPLITS if ours in self.named} | asked
            if "validation" in found:
                found.setdefault("calibration", found["validation"])
        if set(found.values()) != {ALL}:
            self._check_names(found)
        return found

    def _check_names(self, found: Mapping[str, str]) -> None:
        if ALL in found.values():
            raise UserError(
                f"{self.source}: a document of a named split is also one of all; write all three as all"
            )
        if nameless := [file.name for file in self.files if file.split is None]:
            one = next(file for file in self.files if file.split)
            raise UserError(
                f"{self.source}: {one.name} is of the split {one.split}, but {some(nameless)} of none; "
                "rename it, name the files in source by a pattern, or take all alike by "
                "splits: {train: all, calibration: all, validation: all}"
            )

    def missing(self, ours: str) -> UserError:
        """What to say if none of the splits is for ``ours``."""
        return UserError(f"{self.source}: no file is named {ours}; {self._choice()}")

    def _choice(self) -> str:
        if not self.named:
            return "no file names a split, so leave out splits, and the documents are dealt"
        example = "test" if "test" in self.named else self.named[0]
        said = ", ".join(f"{ours}: {ours if ours in self.named else example}" for ours in SPLITS)
        return f"files name {', '.join(self.named)}; choose, for example splits: {{{said}}}"


def kind(source: str) -> str:
    """What a text comes from: ``generate``, ``model``, ``python``, ``files``, or ``datasets`` for what the
    library of that name reads, an id of the hub or a folder whose README.md configures it."""
    if source in ("generate", MODEL, PYTHON):
        return source
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        return "datasets" if _has_configs(Path(path)) else "files"
    known = suffix(path) in FORMATS or suffix(path) in FOREIGN
    local = source.startswith(("/", "./", "../", "~")) or os.path.exists(path) or known
    return "files" if local or not HUB_ID.fullmatch(source) else "datasets"


def _has_configs(folder: Path) -> bool:
    """Whether the front matter of README.md says which files are which split, as on the hub."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    head = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    return bool(head and re.search(r"^configs:", head[1], re.MULTILINE))


def find(source: str) -> Source:
    """The files of a source. UserError if there is none, or they are not of one format that is read."""
    place = os.path.expanduser(source)
    root, is_folder = Path(place), os.path.isdir(place)
    if is_folder:
        paths = dict(_walk(root))
    elif os.path.isfile(place):
        paths = {root.name: root}
    elif os.path.exists(place):
        raise UserError(f"{source} is neither a file nor a folder")
    else:
        paths = _matching(source, root)
    formats = {name: FORMATS.get(suffix(path)) for name, path in paths.items()}
    if is_folder:
        formats = _company(source, formats)
    elif unread := [name for name, format in formats.items() if format is None]:
        raise UserError(f"{source}: {some(unread)} cannot be read; the formats are {READ}. Convert it")
    files = [File(paths[name], name, format, split_of(name)) for name, format in formats.items() if format]
    if not files:
        raise UserError(
            f"{source} has no file to read, which are {READ}; it "
            + (f"has {some(paths)}" if paths else "is empty")
        )
    for file in files:
        if not os.access(file.path, os.R_OK):
            raise UserError(f"{file.path} cannot be read: permission denied, or a link to nothing")
    others = tuple(name for name, format in formats.items() if not format)
    return Source(source, tuple(files), others)


def _company(source: str, formats: dict[str, str | None]) -> dict[str, str | None]:
    """The formats of the files of a folder without those that only tell about the others. UserError for more
    than one format."""
    read = {name: format for name, format in formats.items() if format}
    if any(format != PLAIN and not ABOUT.match(Path(name).name) for name, format in read.items()):
        formats = {n: None if ABOUT.match(Path(n).name) else format for n, format in formats.items()}
    kinds: dict[str, str] = {}  # the first file of each
    for name, format in formats.items():
        if format or (read and suffix(name) in FOREIGN):
            kinds.setdefault(format or suffix(name), name)
    if len(kinds) > 1:
        one = Path(next(name for name, format in formats.items() if format))
        ending = Path(one.stem).suffix + ".gz" if one.suffix == ".gz" else one.suffix
        raise UserError(
            f"{source} holds texts of several formats: {some(kinds.values())}; name those to read by a "
            f"pattern, such as source: {source.rstrip('/')}/**/*{ending}"
        )
    return formats


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every file in a folder, in order, but hidden ones. No link is followed back."""

    def failed(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}")

    def leads_back(path: Path) -> bool:
        above = [path.parent, *path.parent.parents][: len(path.parts) - len(root.parts)]
        return path.is_symlink() and path.resolve() in [folder.resolve() for folder in above]

    for folder, folders, files in os.walk(root, onerror=failed, followlinks=True):
        shown = sorted(name for name in folders if not name.startswith((".", "__")))
        folders[:] = [name for name in shown if not leads_back(Path(folder, name))]
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path.relative_to(root).as_posix(), path


def _matching(source: str, pattern: Path) -> dict[str, Path]:
    if not glob.has_magic(str(pattern)):
        near = os.listdir(pattern.parent) if pattern.parent.is_dir() else []
        close = difflib.get_close_matches(pattern.name, near, 1)
        hint = f"; did you mean {pattern.parent / close[0]}?" if close else ""
        raise UserError(f"there is no file or folder {source}{hint}")
    parts = pattern.parts
    plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:plain])
    # Any folders for **, else part by part.
    names = re.compile("".join(map(_part, [*parts[plain:], *["*"] * (parts[-1] == "**")])).removesuffix("/"))
    if not (files := {name: path for name, path in _walk(root) if names.fullmatch(name)}):
        raise UserError(f"no file matches {source}")
    return files


def _part(part: str) -> str:
    """One part of a pattern as a regular expression, with the / after it."""
    if part == "**":
        return "(?:.+/)?"
    found = ""
    for word in re.split(r"(\*+|\?|\[[^\]]+\])", part):
        if word.startswith("[") and word.endswith("]"):
            found += "[" + word[1:].replace("\\", r"\\").replace("!", "^", word[1] == "!")
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(word[:1]) or re.escape(word)
    return found + "/"


def suffix(path: str | Path) -> str:
    """``.jsonl`` of ``a.JSONL`` and of ``a.jsonl.gz``; what is packed otherwise is not looked into."""
    path = Path(str(path).lower())
    inner = Path(path.stem).suffix
    return inner if path.suffix == ".gz" and inner in FORMATS and inner != ".parquet" else path.suffix


def split_of(name: str) -> str | None:
    """The split that a path inside a source names: a word of a folder's name, else of the file's."""
    *folders, file = name.lower().split("/")
    for part in [*folders, file.removesuffix(".gz").rpartition(".")[0]]:
        if found := [WORDS[word] for word in re.split(r"[^a-z]+", part) if word in WORDS]:
            return found[0]
    return None


def check_number(source: str, there: int, asked: Mapping[str, int], files: Sequence[File]) -> None:
    """Raise UserError if our splits ask for more documents of these files than are ``there``."""
    total = sum(asked.values())
    if total <= there:
        return
    shares = {ours: max(1, number * there // total) for ours, number in asked.items()}
    shares[max(shares, key=shares.get)] -= max(0, sum(shares.values()) - there)
    said = ", ".join(f"{ours}: {number}" for ours, number in shares.items())
    said = f"write at most, for example, {said}" if there >= len(asked) else "each of them needs its own"
    if files and files[0].format == PLAIN:
        said += "; a text file is one document, so split a book into several files"
    asked_for = " + ".join(f"{number} ({ours})" for ours, number in asked.items())
    one = "document" if there == 1 else "different documents"
    raise UserError(f"{source} has {there} {one}, but {asked_for} are asked for; {said}")


def fingerprint(source: str) -> str:
    """What changes when a file of a local source does: names, sizes and times; empty if it is not there."""
    try:
        files = find(source).files
    except UserError:
        return ""
    facts = [(file.name, file.path.stat().st_size, file.path.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def some(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
