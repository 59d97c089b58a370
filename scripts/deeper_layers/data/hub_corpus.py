"""A fixed sample of documents from a data set of the hub, or from a folder that its README.md configures.

The sample is the start of the stream of one split, shuffled by ``datasets`` with a seed (shards in random
order, ten at a time, then a buffer of documents), so that only what is taken is downloaded. Where several of
our splits are drawn from one split of the data set, a document's text alone says (by a hash) which of them
it is for: they share no document, not even a repeated one, and none depends on how many the others take.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import datasets
import pyarrow
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..checkpoints.hub import UNREACHABLE, to_user_error
from ..errors import UserError
from ..settings.texts import SampleSettings
from .conversations import as_conversation


@dataclass(frozen=True)
class Corpus:
    """Documents of ``split`` of the data set ``source`` (a hub id or a folder) in its configuration
    ``name``; the text is in ``field``. Of ``parts`` disjoint parts this is number ``part``."""

    source: str
    name: str | None = None
    revision: str | None = None
    split: str = "train"
    field: str = SampleSettings.field
    part: int = 0
    parts: int = 1
    seed: int = SampleSettings.seed
    buffer: int = SampleSettings.buffer

    def documents(self) -> Iterator[str]:
        """The texts of this part in random order, empty ones left out. Raises UserError for a data set,
        configuration, split or field that there is not, and for a hub that cannot be reached."""
        stream = self._stream().shuffle(seed=self.seed, buffer_size=self.buffer)
        for document in self._read(stream):
            if self.field not in document:
                raise UserError(f"{self.source} has no field {self.field!r}; it has {', '.join(document)}")
            text = as_conversation(document[self.field]) or document[self.field]
            if not isinstance(text, str | None):
                raise UserError(
                    f"{self.source}: the field {self.field!r} holds a {type(text).__name__}, not text; the "
                    f"fields are {', '.join(document)}"
                )
            if text and self.holds(text):
                yield text

    def _read(self, stream: datasets.IterableDataset) -> Iterator[dict]:
        """The documents of a stream; faults of its files in one line."""
        try:
            yield from stream
        except (DatasetsError, pyarrow.ArrowException, UnicodeDecodeError, RuntimeError) as error:
            why = str(error).splitlines() or [type(error).__name__]
            raise UserError(f"{self.source}: a file of it cannot be read ({why[0]})") from None

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
        except (ValueError, DatasetsError, FileNotFoundError) as error:
            said = str(error).splitlines()[0].partition(" with any supported extension")[0]
            if said.startswith("Bad split"):
                said += ". Say which split each of ours is drawn from, for example "
                said += "splits: {train: train, calibration: train, validation: train}"
            raise UserError(f"{self.source}: {said}") from None

    def _ask_hub(self) -> None:
        """Faults of the hub, at once and in one line; load_dataset retries for half a minute."""
        try:
            HfApi().dataset_info(self.source, revision=self.revision, timeout=10)
        except (*UNREACHABLE, HfHubHTTPError, HFValidationError) as error:
            raise to_user_error(error, self.source, self.revision, "dataset") from None

    def sample(self, count: int) -> Iterator[str]:
        """The first ``count`` documents. Raises UserError at their end if there are fewer."""
        written = 0
        for written, text in enumerate(islice(self.documents(), count), 1):  # noqa: B007
            yield text
        if written < count:
            part = (
                f" (one in {self.parts}, since {self.parts} of our splits share it)" if self.parts > 1 else ""
            )
            raise UserError(
                f"{self.source}, split {self.split}: there are only {written} documents for this text{part}, "
                f"not {count}; ask for fewer"
            )

    def facts(self) -> dict:
        """What the documents are, for the JSON beside the sample."""
        return dict(vars(self))
