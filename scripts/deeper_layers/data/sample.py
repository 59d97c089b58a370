"""A sample of documents, written down with what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.files import atomic_write, sha256, write_json
from ..runtime.progress import track
from ..runtime.provenance import provenance
from .conversations import Conversation

if TYPE_CHECKING:  # the library `datasets` takes seconds to import, and local files do without
    from .hub_corpus import Corpus
    from .local_corpus import LocalCorpus


def write_sample(corpus: LocalCorpus | Corpus, count: int, path: str | Path) -> None:
    """Write ``count`` documents as JSONL ({"text": ...} a line, or {"messages": ...}) and, beside it, what
    they are as .json.

    Raises UserError if there are fewer.
    """
    path = Path(path)
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for text in track(corpus.sample(count), f"sampling {corpus.source}", count, "document"):
            record = {"messages": text.messages} if isinstance(text, Conversation) else {"text": text}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    facts = corpus.facts() | {"documents": count, "sha256": sha256(path)}
    write_json(path.with_suffix(".json"), provenance(**facts))
