"""What a healing method is: its settings, what it reads, how it heals, and the artifact that it writes.

No torch: Snakemake asks methods while it reads the Snakefile, so what computes is imported within ``heal``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..settings.base import Settings

if TYPE_CHECKING:
    from ..checkpoints.shape import Shape
    from ..models.artifacts import Artifact


@dataclass(frozen=True)
class HealingFiles:
    """What a healing reads and writes.

    ``checkpoint`` is the folder of the cut model; ``tokens``, the token file of the text, ``full``, the
    folder of the uncut model, and ``repair``, the file of tensors that repair the cut, are there where the
    method needs them. Results go into the folder ``out``; ``state`` is a folder of what a killed run resumes
    from, removed at the end.
    """

    checkpoint: Path
    tokens: Path
    out: Path
    state: Path
    full: Path | None = None
    repair: Path | None = None


@dataclass(frozen=True)
class Demand:
    """What a healing asks of a machine, at most.

    Attributes:
        precision: of the model in memory: fp32, bf16 or nf4.
        tokens: that are read in all.
        flops_per_param: floating-point operations per token and parameter; 2 for a forward pass.
        memory_mb: beside the weights of the model.
        artifact_bytes: on the disk.
    """

    precision: str
    tokens: float
    flops_per_param: float
    memory_mb: float
    artifact_bytes: float


def estimate(function: Callable) -> Callable:
    """Mark a function that foretells cost and changes no result: another estimate reruns nothing
    (``study.code_hash``)."""
    return function


class Method(ABC):
    """A way to heal a cut; with no training it is a repair. ``healing/methods.py`` names all of them."""

    TITLE: ClassVar[str]  # what a model card calls it
    SETTINGS: ClassVar[type[Settings]]
    ARTIFACT: ClassVar[type[Artifact]]
    NEEDS: ClassVar[frozenset[str]] = frozenset({"tokens"})  # of HealingFiles, at least: tokens, full, repair
    WRITES: ClassVar[tuple[str, ...]] = ()  # beside the artifact and heal.json
    HAS_CONTROL: ClassVar[bool] = True  # whether it can do anything to the uncut model

    @property
    def artifact_files(self) -> list[str]:
        """The files of the artifact, from the folder of the results."""
        return [f"{self.ARTIFACT.FOLDER}/{name}" for name in self.ARTIFACT.FILES]

    def settings(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """Those of a recipe's settings that are this method's."""
        values = recipe | (recipe.get("settings") or {})
        return {one.name: values[one.name] for one in fields(self.SETTINGS) if one.name in values}

    def has_control(self, settings: Any) -> bool:
        """Whether these settings do anything to the uncut model."""
        return self.HAS_CONTROL

    def needs(self, settings: Any) -> frozenset[str]:
        """Of HealingFiles, what is read with these settings."""
        return self.NEEDS

    def reads_full(self, recipe: dict[str, Any]) -> bool:
        """Whether the uncut model is read with a recipe's settings."""
        return "full" in self.needs(self.SETTINGS.of(self.settings(recipe)))

    @abstractmethod
    @estimate
    def demand(self, settings: Any, shape: Shape, document_tokens: float) -> Demand:
        """What healing a cut asks of a machine, given the tokens of a document of its text (infinite, if not
        known). ``shape`` is that of the model in memory: the uncut one, where that is needed."""

    @abstractmethod
    def heal(self, files: HealingFiles, settings: Any, trust_remote_code: bool = False) -> None:
        """Heal the cut: write the artifact, and with ``results.write_summary`` heal.json, last."""
