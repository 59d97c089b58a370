"""What a healing writes beside its artifact: heal.json, last, and the curve of a training."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.folder import MANIFEST
from ..models.artifacts import KINDS
from ..runtime.files import atomic_write, sha256, write_json
from ..runtime.provenance import provenance
from ..settings.base import Settings
from .method import HealingFiles

SUMMARY, TRAINING = "heal.json", "training.csv"


def begin_results(out: Path) -> None:
    """Make the folder of the results, without the summary of an earlier healing, which is not whole now, and
    without its artifact, which may be of another kind."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SUMMARY).unlink(missing_ok=True)
    for kind in KINDS:
        shutil.rmtree(out / kind.FOLDER, ignore_errors=True)


def write_training(
    out: Path, log: list[dict], cumulative_tokens: Sequence[int], others: Sequence[str] = ()
) -> None:
    """The training curve: ``log`` has an entry per step, as the Trainer has it; ``cumulative_tokens``
    (int [steps]) are the tokens trained on up to and with each step, padding not counted; ``others`` are more
    columns of the entries."""
    with atomic_write(out / TRAINING) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", "loss", "learning_rate", "grad_norm", "tokens", *others])
        for entry in log:
            values = [entry[name] for name in ("step", "loss", "learning_rate", "grad_norm")]
            tokens = cumulative_tokens[entry["step"] - 1]
            table.writerow([*values, tokens, *(entry[name] for name in others)])


def write_summary(files: HealingFiles, method: str, settings: Settings, **facts) -> None:
    """heal.json, when all else is written: what was healed by which ``method`` (its title) with which
    ``settings``, and ``facts`` of it."""
    manifest = files.checkpoint / MANIFEST
    write_json(
        files.out / SUMMARY,
        provenance(
            checkpoint=str(files.checkpoint),
            method=method,
            manifest_sha256=sha256(manifest) if manifest.exists() else None,
            recipe=settings.determining(),
            **facts,
        ),
    )
