"""Documents of a local text, dealt into our splits: every document is in one of them or in none.

The documents of a source (or of those of its files that are of one split) are ordered by a hash of their text
and a seed, so the order is random but always the same. Training takes its documents from one end, validation
from the other, and calibration those next to validation's: training and validation depend on no number but
their own, and all can be used up to the last document.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from array import array
from collections.abc import Iterator, Mapping

import numpy as np

from ..errors import UserError
from ..runtime.progress import echo
from ..settings.texts import SampleSettings
from . import python_english, text_files
from .local_source import ALL, PYTHON, SPLITS, File, Source, check_number, find, some


@dataclasses.dataclass
class LocalCorpus:
    """The documents of ``source`` for one of our splits, ``ours``; their text is in ``field``.

    ``beside`` has how many documents our other splits take, those that a study does not read left out;
    ``splits`` what of the source each of ours is drawn from, where the user says so.
    """

    source: str
    field: str = SampleSettings.field
    ours: str = "train"
    beside: Mapping[str, int] = dataclasses.field(default_factory=dict)
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = SampleSettings.seed

    def __post_init__(self):
        self.columns: set[str] = set()
        self.read: dict[str, int] = {}  # documents of each file
        self.empty = self.repeated = 0
        self.found = Source(self.source, ()) if self.source == PYTHON else find(self.source)
        theirs = dict.fromkeys(SPLITS, ALL) if self.source == PYTHON else self.found.splits(self.splits)
        if self.ours not in theirs:
            raise self.found.missing(self.ours)
        self.split = theirs[self.ours]
        self.asked = {s: n for s, n in self.beside.items() if theirs.get(s) == self.split and s != self.ours}

    def sample(self, count: int) -> list[str]:
        """``count`` texts for this split, in random order, always the same. Raises UserError if there are not
        as many as all of our splits together ask for, and for a file that cannot be read."""
        self.asked[self.ours] = count
        self.asked = {ours: self.asked[ours] for ours in SPLITS if ours in self.asked}
        keys = self._keys()
        echo(str(self))
        wanted = {int(key): place for place, key in enumerate(self._deal(keys))}
        texts: list[str] = [""] * len(wanted)
        for text in self._texts(set()):
            if (place := wanted.pop(self._key(text), None)) is not None:
                texts[place] = text
        if wanted:
            raise UserError(f"{self.source} has changed while it was read; run this again")
        return texts

    def _deal(self, keys: np.ndarray) -> np.ndarray:
        """Of the ordered keys of all documents those of this split, in its own order."""
        begin = self.asked.get("validation", 0) if self.ours == "calibration" else 0
        if self.ours == "train":
            keys = keys[::-1]
        return keys[begin : begin + self.asked[self.ours]]

    def _keys(self) -> np.ndarray:
        """The keys of all distinct documents that are not empty, ordered, uint64 [D]."""
        keys = array("Q")
        for name, texts in self._by_file(self.columns):
            for text in texts:
                self.read[name] = self.read.get(name, 0) + 1
                if text.strip():
                    keys.append(self._key(text))
                else:
                    self.empty += 1
            self.read.setdefault(name, 0)
        distinct = np.unique(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.uint64)
        self.repeated = len(keys) - len(distinct)
        self._check(len(distinct))
        return distinct

    def _key(self, text: str) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(self.seed).encode()[:64])
        return int.from_bytes(digest.digest())

    def _texts(self, columns: set[str]) -> Iterator[str]:
        for _, texts in self._by_file(columns):
            yield from texts

    def _by_file(self, columns: set[str]) -> Iterator[tuple[str, Iterator[str]]]:
        """(name, texts) of each file of the split."""
        if self.source == PYTHON:
            yield python_english.library().name, iter(python_english.english())
        for file in self._files:
            yield file.name, text_files.documents(file, self.field, columns)

    @property
    def _files(self) -> list[File]:
        return self.found.of(self.split)

    def _check(self, there: int) -> None:
        if there == 0:
            raise UserError(
                f"{self.source} holds no text: {some(self.read)} has no document that is not empty"
            )
        check_number(self.source, there, self.asked, self._files)

    def facts(self) -> dict:
        """What was read and what was left out, for the log and the JSON beside the sample."""
        others = [f.name for f in self.found.files if f not in self._files]
        about = {
            "source": self.source,
            "format": self._files[0].format if self._files else self._python(),
            "field": self.field if self.columns else None,
            "split": self.split,
            "part": self.ours,
            "shared": self.asked,
            "seed": self.seed,
            "files": self.read,
        }
        left_out = {
            "empty": self.empty,
            "repeated": self.repeated,
            "fields": sorted(self.columns - {self.field}),
            "other splits": others,
            "files": list(self.found.others),
        }
        return about | {"left_out": left_out}

    @staticmethod
    def _python() -> str:
        return f"help topics and docstrings of Python {platform.python_version()}"

    def __str__(self) -> str:
        """The same in a line."""
        facts = self.facts()
        left = facts["left_out"]
        said = [f"{left[what]} {what}" for what in ("empty", "repeated") if left[what]]
        said += [f"{what} {some(left[what])}" for what in ("fields", "other splits", "files") if left[what]]
        of = "" if self.split == ALL else f" of split {self.split}"
        return (
            f"{self.source}: {self.ours} has {self.asked[self.ours]} of the "
            f"{sum(self.read.values()) - self.empty - self.repeated} documents{of} ({facts['format']}) in "
            f"{some(self.read)}; left out: {', '.join(said) or 'nothing'}"
        )
