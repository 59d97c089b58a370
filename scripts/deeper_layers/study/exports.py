"""The entries of ``export`` in the configuration: MODEL/TREATMENT/N, or a block in place of N."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UserError
from ..pruning.choices import Choice
from .study import Study


def exported(text: str) -> tuple[str, str, str]:
    """(model, treatment, n or block) of an entry."""
    model, treatment, cut = text.split("/")
    return model, treatment, cut


def exported_block(study: Study, cut: str, choices: Iterable[Choice]) -> str:
    """The block that ``cut``, the last part of an entry, names, or that the first strategy chose for its n.
    Raises UserError if it chose none."""
    if not cut.isdecimal():
        return cut
    first = study.strategies[0]
    blocks = {choice.n: choice.block for choice in choices if choice.strategy == first}
    if int(cut) not in blocks:
        raise UserError(f"export: {first} has no block of {cut} layers")
    return str(blocks[int(cut)])
