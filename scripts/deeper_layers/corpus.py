"""A fixed sample of documents from a data set of the hub, or from a folder with the same layout.

The sample is the start of the stream of one split, shuffled by ``datasets`` with a seed (shards in random
order, ten at a time, then a buffer of documents), so that only what is taken is downloaded. Where several of
our splits are drawn from one split of the data set, a document's text alone says (by a hash) which of them
it is for: they share no document, not even a repeated one, and none depends on how many the others take.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from .errors import UserError
from .files import replacing, sha256, write_json
from .hub import UNREACHABLE, explained
from .program import track
from .provenance import provenance


@dataclass(frozen=True)
class Corpus:
    """Documents of ``split`` of the data set ``source`` (a hub id or a folder) in its configuration
    ``name``; the text is in ``field``. Of ``parts`` disjoint parts this is number ``part``."""

    source: str
    name: str | None = None
    revision: str | None = None
    split: str = "train"
    field: str = "text"
    part: int = 0
    parts: int = 1
    seed: int = 0
    buffer: int = 10_000

    def documents(self) -> Iterator[str]:
        """The texts of this part in random order, empty ones left out. Raises UserError for a data set,
        configuration, split or field that there is not, and for a hub that cannot be reached."""
        stream = self._stream().shuffle(seed=self.seed, buffer_size=self.buffer)
        for document in stream:
            if self.field not in document:
                raise UserError(f"{self.source} has no field {self.field!r}; it has {', '.join(document)}")
            text = document[self.field]
            if text and self.holds(text):
                yield text

    def holds(self, text: str) -> bool:
        """Whether a document belongs to this part."""
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) % self.parts == self.part

    def _stream(self) -> datasets.IterableDataset:
        if os.path.isdir(self.source):
            print(f"{self.source} is a folder here", flush=True)
        else:
            self._ask_hub()
        try:
            return datasets.load_dataset(
                self.source, self.name, split=self.split, revision=self.revision, streaming=True
            )
        except (ValueError, DatasetNotFoundError) as error:
            raise UserError(f"{self.source}: {str(error).splitlines()[0]}") from None

    def _ask_hub(self) -> None:
        """Faults of the hub, at once and in one line; load_dataset retries for half a minute."""
        try:
            HfApi().dataset_info(self.source, revision=self.revision, timeout=10)
        except (*UNREACHABLE, HfHubHTTPError, HFValidationError) as error:
            raise explained(error, self.source, self.revision, "dataset") from None


def write_sample(corpus: Corpus, count: int, path: str | Path) -> None:
    """Write ``count`` documents as JSONL ({"text": ...} a line) and, beside it, what they are as .json.

    Raises UserError if there are fewer.
    """
    path, written = Path(path), 0
    with replacing(path) as aside, open(aside, "w") as file:
        for text in track(_first(corpus.documents(), count), f"sampling {corpus.source}", count, "document"):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            written += 1
        if written < count:
            raise UserError(
                f"{corpus.source}, split {corpus.split}: there are only {written} documents for this text, "
                f"not {count}; ask for fewer"
            )
    facts = vars(corpus) | {"documents": written, "sha256": sha256(path)}
    write_json(path.with_suffix(".json"), provenance(**facts))


def _first(texts: Iterator[str], count: int) -> Iterator[str]:
    """The first ``count`` texts; the one after them is not waited for."""
    for _ in range(count):
        try:
            yield next(texts)
        except StopIteration:
            return
