"""Scores of finished batches, kept on the disk until all are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ..pruning.layer_set import LayerSet
from .inputs import Input, Scores


class Journal:
    """The scores of finished batches in a file of ``folder`` (None: nowhere), so that a killed evaluation
    goes on where it died. A line holds how many inputs are done and the scores of the last ones."""

    def __init__(self, folder: Path | None, inputs: Sequence[Input], blocks: Sequence[LayerSet]):
        self.blocks = blocks
        digest = sha256()
        for entry in inputs:
            digest.update(repr(entry).encode())
        self.path = folder and folder / f"{digest.hexdigest()[:16]}.jsonl"

    def read(self) -> Iterator[tuple[int, Scores]]:
        """(inputs done, their scores) of every line that is whole and knows all of our blocks; what
        follows the last such line is cut off."""
        if self.path is None or not self.path.exists():
            return
        whole = 0
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    done, by_block = json.loads(line if line.endswith(b"\n") else b"")
                    scores = {b: {i: (ll, hit) for i, ll, hit in by_block[str(b)]} for b in self.blocks}
                except (ValueError, KeyError):
                    break
                whole += len(line)
                yield done, scores
        os.truncate(self.path, whole)

    def write(self, done: int, scores: Scores) -> None:
        """Add a line: how many inputs are ``done``, and the scores of the last ones."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        by_block = {str(block): [(i, *score) for i, score in by.items()] for block, by in scores.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps([done, by_block]) + "\n")
