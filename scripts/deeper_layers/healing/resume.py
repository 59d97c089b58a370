"""What a killed healing goes on from: the Trainer's checkpoints, whose they are, and which are complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import UserError
from ..runtime.files import atomic_write, read_json, write_json
from ..settings.base import Settings
from .batch_plan import BatchPlan

TRAINED = "adapter_model.safetensors"  # what trains, also where that is no adapter
CHECKPOINT_FILES = (  # all that an exact resume needs; the Trainer resumes silently without some of them
    TRAINED,
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",  # written last
)


class ResumableState:
    """The ``folder`` of resumable state of a healing with ``settings`` of the model in ``checkpoint`` and
    ``others`` of its inputs, files. What it holds of other settings or other inputs is dropped; a folder of
    someone else's is refused (UserError)."""

    def __init__(self, folder: Path, settings: Settings, checkpoint: Path, *others: Path | None):
        self.folder = folder
        self._fingerprint, self._plan = folder / "made_for.json", folder / "plan.json"
        fingerprint = _fingerprint(settings, checkpoint, others)
        if self._fingerprint.exists() and self._fingerprint.read_text() != fingerprint:
            print(
                f"dropping {self.folder}: its checkpoints are of another recipe or other inputs", flush=True
            )
            self.remove()
        if not self._fingerprint.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(not f.name.startswith(".") for f in self.folder.iterdir()):  # a dot: our own, half-written
                raise UserError(
                    f"{self.folder} is not a folder of resumable state: name one that does not exist"
                )
            with atomic_write(self._fingerprint) as temporary:
                temporary.write_text(fingerprint)

    def plan(self, plan: BatchPlan) -> BatchPlan:
        """The plan that an earlier run found to fit, unless ``plan`` takes fewer tokens at once: then that is
        kept from now on, since it may be asked for because the earlier run was killed for its memory."""
        if self._plan.exists():
            known = BatchPlan(**read_json(self._plan))
            if known.batch_tokens <= plan.batch_tokens:
                return known
        return self.replace_plan(plan)

    def replace_plan(self, plan: BatchPlan) -> BatchPlan:
        """Keep ``plan`` from now on."""
        write_json(self._plan, asdict(plan))
        return plan

    def latest(self) -> Path | None:
        """The last complete Trainer checkpoint; half-written ones are deleted."""
        complete = []
        for folder in self.folder.glob("checkpoint-*"):
            if is_complete(folder):
                complete.append(folder)
            else:
                print(f"dropping half-written {folder}", flush=True)
                shutil.rmtree(folder)
        return max(complete, key=lambda f: int(f.name.split("-")[1]), default=None)

    def remove(self) -> None:
        """Delete the folder, the fingerprint last."""
        for path in set(self.folder.iterdir()) - {self._fingerprint}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._fingerprint.unlink()
        self.folder.rmdir()


def _fingerprint(settings: Settings, checkpoint: Path, others: Sequence[Path | None]) -> str:
    """What a state belongs to: the settings, and name, size and date of each input."""
    inputs = [*filter(None, others), checkpoint / "config.json", *sorted(checkpoint.glob("*.safetensors"))]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in inputs if f.exists()]
    return json.dumps({"recipe": settings.determining(), "inputs": stats}, sort_keys=True)


def is_complete(folder: Path) -> bool:
    """Whether a Trainer checkpoint was written to its end."""
    try:
        read_json(folder / "trainer_state.json")
    except (OSError, ValueError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size for name in CHECKPOINT_FILES)
