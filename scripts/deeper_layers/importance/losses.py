"""The losses that strategies choose by: of cuts that share a trunk, each a branch of the tree.

A file keeps what was measured, round after round, so that more n cost only what is new, and a search that was
killed goes on where it was.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..evaluation.cut_scorer import CutScorer
from ..evaluation.layer_tree import LayerTree
from ..evaluation.loss import losses
from ..pruning.by_loss import blocks_of, next_cuts, single_layers
from ..pruning.layer_set import LayerSet
from ..runtime.files import atomic_write

Loss = tuple[float, float]  # nats per token, and its standard error over the documents


class MeasuredLosses:
    """Losses of cuts of a model on ``documents`` (int64 [T] each).

    Args:
        model: gives the uncut model, when it is needed first.
        documents: the calibration text.
        journal: file that keeps every round, with a folder beside it for the batches of the current one. It
            must be of this model, text, settings and code. None keeps nothing.
        batch: sequences at once; None takes as many as make a fixed number of tokens.
    """

    def __init__(
        self,
        model: Callable[[], object],
        documents: Sequence[np.ndarray],
        journal: Path | None = None,
        batch: int | None = None,
    ):
        self._model, self.documents, self.batch = model, documents, batch
        self.journal = journal
        self.known: dict[LayerSet, Loss] = {}
        self.cost = {"run": 0, "separate": 0, "seconds": 0.0}
        self._loaded: object = None
        self._tree: LayerTree | None = None
        for entry in self._read():
            self._add(entry)

    def of(self, cuts: Iterable[LayerSet], label: str) -> dict[LayerSet, Loss]:
        """The loss of each cut; those that are not known yet are run together."""
        cuts = list(cuts)
        if missing := [cut for cut in cuts if cut not in self.known]:
            started = time.monotonic()
            scorer = self._scorer(missing)
            found = losses(scorer, self.documents, label, self._batches(missing))
            values = {str(cut): result["results"]["loss"] for cut, result in found.items()}
            entry = {
                "losses": {name: [value["loss"], value["loss_stderr"]] for name, value in values.items()},
                "run": scorer.layers_run,
                "separate": scorer.layers_separate,
                "seconds": round(time.monotonic() - started, 3),
            }
            self._write(entry)
            self._add(entry)
            if folder := self._batches(missing):
                shutil.rmtree(folder, ignore_errors=True)
        return {cut: self.known[cut] for cut in cuts}

    def _scorer(self, cuts: list[LayerSet]) -> CutScorer:
        """The first one finds out whether the tree is exact, and those that follow believe it."""
        if self._loaded is None:
            self._loaded = self._model()
            scorer = CutScorer(self._loaded, cuts, self.batch)
            self._tree = scorer.tree
            return scorer
        scorer = CutScorer(self._loaded, cuts, self.batch, tree=False)
        scorer.tree = self._tree
        return scorer

    def _batches(self, cuts: list[LayerSet]) -> Path | None:
        """Where the finished batches of a round wait for the others."""
        names = " ".join(map(str, cuts)).encode()
        return self.journal and self.journal.with_suffix("") / sha256(names).hexdigest()[:16]

    def _add(self, entry: dict) -> None:
        self.known |= {LayerSet.parse(name): (loss, error) for name, (loss, error) in entry["losses"].items()}
        for key in self.cost:
            self.cost[key] += entry[key]

    def _read(self) -> Iterator[dict]:
        """The rounds of the journal; what follows the last whole line is cut off."""
        if self.journal is None or not self.journal.exists():
            return
        whole = 0
        with open(self.journal, "rb") as file:
            for line in file:
                try:
                    entry = json.loads(line if line.endswith(b"\n") else b"")
                except ValueError:
                    break
                whole += len(line)
                yield entry
        os.truncate(self.journal, whole)

    def _write(self, entry: dict) -> None:
        if self.journal is None:
            return
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with open(self.journal, "a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def block_losses(measured: MeasuredLosses, ns: Iterable[int], n_layers: int) -> list[dict]:
    """Rows (first, n, loss, stderr) of all runs of n layers."""
    cuts, rows = blocks_of(ns, n_layers), []
    for cut, (loss, error) in measured.of(cuts, "losses of blocks").items():
        rows.append({"first": cut.first, "n": cut.n, "loss": loss, "stderr": error})
    return rows


def layer_losses(measured: MeasuredLosses, n_layers: int) -> list[dict]:
    """Rows (layer, loss, stderr) of every layer by itself."""
    found = measured.of(single_layers(n_layers), "losses of layers")
    return [{"layer": cut.first, "loss": loss, "stderr": error} for cut, (loss, error) in found.items()]


def greedy_losses(measured: MeasuredLosses, n: int, free: Sequence[int], n_layers: int) -> list[dict]:
    """Rows (n, layer, loss, stderr): the layer that goes in each step, and the loss without all of those so
    far. Ties go to the lower layer, and a loss that is no number comes last. Fewer rows than ``n`` where no
    more layers may go."""
    rows: list[dict] = []
    for step in range(1, n + 1):
        cuts = next_cuts([row["layer"] for row in rows], free, n_layers)
        if not cuts:
            break
        found = measured.of(cuts.values(), f"greedy, layer {step} of {n}")
        layer = min(cuts, key=lambda layer: (_order(found[cuts[layer]][0]), layer))
        loss, error = found[cuts[layer]]
        rows.append({"n": step, "layer": layer, "loss": loss, "stderr": error})
    return rows


def write_rows(path: Path, header: Sequence[str], rows: Iterable[dict]) -> None:
    """A CSV of ``rows``, ten digits of a loss."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        out = csv.DictWriter(file, header, lineterminator="\n")
        out.writeheader()
        for row in rows:
            out.writerow(row | {"loss": f"{row['loss']:.10g}", "stderr": f"{row['stderr']:.6g}"})


def _order(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
