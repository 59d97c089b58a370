"""What a healing wrote, as a folder: put on the cut model, or merged into its weights.

Evaluation, export and model cards know artifacts, not the methods that write them. A new kind is a subclass
of ``Artifact`` in ``KINDS``. No torch, until an artifact meets a model.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..runtime.files import read_json, sha256

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from ..pruning.layer_set import LayerSet


@dataclass(frozen=True)
class Description:
    """An artifact in words, for a model card: "healed with ``kind``, ``merged``"; and its ``settings``."""

    kind: str
    merged: str
    settings: Mapping[str, str] = field(default_factory=dict)


class Artifact(ABC):
    """A whole artifact in ``folder``. Raises UserError if a file is missing."""

    FOLDER: ClassVar[str]  # its name in the folder of a healing
    FILES: ClassVar[tuple[str, ...]]  # all that it consists of
    MARKS: ClassVar[tuple[str, ...]] = ()  # of these, what tells it from other kinds; none: all

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        for name in self.FILES:
            if not (self.folder / name).is_file():
                raise UserError(f"{folder} is not what a healing writes: it has no {name}")

    def digest(self) -> str:
        """A hash of all files: what an evaluation depends on."""
        files = {name: sha256(self.folder / name) for name in sorted(self.FILES)}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

    @abstractmethod
    def describe(self) -> Description:
        """What a model card tells of it."""

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """The cut ``model``, in any precision, as it was healed. No number of a tensor of the model is
        overwritten: others take the place of its tensors. Raises UserError for a model that the artifact was
        not made for."""

    @abstractmethod
    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """The same as an ordinary model, for a checkpoint that needs nothing beside it; ``model`` is in the
        precision of its file."""


class LoraAdapter(Artifact):
    """A LoRA adapter as peft writes it. Evaluated unmerged, as it was trained."""

    FOLDER = "adapter"
    FILES = ("adapter_config.json", "adapter_model.safetensors")

    def describe(self) -> Description:
        targets = read_json(self.folder / "adapter_config.json")["target_modules"]
        named = targets if isinstance(targets, str) else ", ".join(targets)
        return Description("LoRA", "the adapter merged into the weights", {"targets": named})

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        from .adapters import load_adapter, multiply_in_bf16

        return multiply_in_bf16(load_adapter(model, self.folder)).get_base_model().eval()

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        from .adapters import load_adapter

        return load_adapter(model, self.folder).merge_and_unload(safe_merge=True)


class ReplacedTensors(Artifact):
    """Whole tensors that take the place of the checkpoint's tensors of the same names."""

    FOLDER = "replaced"
    FILES = ("replaced.safetensors",)

    @classmethod
    def write(cls, out: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write the artifact of a healing whose results are in the folder ``out``: ``tensors`` by the names
        that they have in the checkpoint."""
        from .replaced import write_tensors

        write_tensors(out / cls.FOLDER / cls.FILES[0], tensors)

    def describe(self) -> Description:
        from ..checkpoints.safetensors_io import read_header

        names = sorted(read_header(self.folder / self.FILES[0]).tensors)
        return Description("new weights", "which replace those of the cut", {"tensors": ", ".join(names)})

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        from .replaced import replace_tensors

        return replace_tensors(model, self.folder / self.FILES[0]).eval()

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        return self.apply(model)


class RepairedAdapter(Artifact):
    """Tensors that repair a cut, and a LoRA adapter that was trained on it with them."""

    FOLDER = "repaired_adapter"
    MARKS = ("repair.safetensors",)
    FILES = (*LoraAdapter.FILES, *MARKS)

    def describe(self) -> Description:
        lora = LoraAdapter(self.folder).describe()
        return Description("LoRA on repaired weights", "both merged into the weights", lora.settings)

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        return LoraAdapter(self.folder).apply(self._repaired(model))

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        return LoraAdapter(self.folder).merge(self._repaired(model))

    def _repaired(self, model: PreTrainedModel) -> PreTrainedModel:
        from .replaced import replace_tensors

        return replace_tensors(model, self.folder / self.MARKS[0])


KINDS: tuple[type[Artifact], ...] = (RepairedAdapter, LoraAdapter, ReplacedTensors)  # in this order to look


def open_artifact(folder: str | Path) -> Artifact:
    """The artifact in ``folder``, of the kind whose files are there. UserError if it is none."""
    for kind in KINDS:
        if any((Path(folder) / name).is_file() for name in kind.MARKS or kind.FILES):
            return kind(folder)
    known = ", ".join(dict.fromkeys(kind.FILES[0] for kind in KINDS))
    raise UserError(f"{folder} is not what a healing writes: it has none of {known}")


def healed_artifact(out: str | Path) -> Artifact:
    """The artifact of the healing whose results are in the folder ``out``."""
    return open_artifact(next((f for kind in KINDS if (f := Path(out) / kind.FOLDER).is_dir()), out))


@contextmanager
def healed_cut(model: PreTrainedModel, block: LayerSet, artifact: Artifact) -> Iterator[PreTrainedModel]:
    """Within the context, the uncut ``model`` is what a healing of its cut ``block`` has made of that:
    ``load_healed`` of the cut's checkpoint, number for number. Afterwards it is as it was."""
    from .layers import removed
    from .restore import restored

    with removed(model, block), restored(model):
        yield artifact.apply(model)


def load_healed(
    checkpoint: str | Path, artifact: str | Path, precision: str = "fp32", trust_remote_code: bool = False
) -> PreTrainedModel:
    """The cut model in ``checkpoint`` with the artifact in the folder ``artifact``, in eval mode. Raises
    UserError as ``models.load.load_model`` does, and if the two do not belong together."""
    healed = open_artifact(artifact)
    from .load import load_model

    return healed.apply(load_model(checkpoint, precision, trust_remote_code))
