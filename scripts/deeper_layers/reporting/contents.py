"""What a study's results hold, as study.json in their folder says: for whoever gathers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import UserError
from ..runtime.files import read_json


@dataclass(frozen=True)
class Contents:
    """The ``models``, ``strategies`` and ``suites`` of a study; those of the suites whose loss is that of
    C4's validation split (``c4``), and of each suite that names one the metric that stands for its tasks
    (``metrics``); whether it measured ``speed``; and of each recipe and model the names of
    the cuts that were ``healed``, full among them if the uncut model was trained too."""

    models: Sequence[str]
    strategies: Sequence[str]
    suites: Sequence[str] = ()
    c4: Sequence[str] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    speed: bool = False
    healed: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Contents:
        """Of a study.json. Raises UserError for a file that is missing or none."""
        try:
            values = read_json(path)
            known = [key.name for key in fields(cls)]
            return cls(**{name: values[name] for name in known if name in values})
        except FileNotFoundError:
            raise UserError(f"{path} is missing: snakemake writes it with the results") from None
        except (ValueError, TypeError):
            raise UserError(f"{path} does not say what a study holds: let snakemake write it") from None
