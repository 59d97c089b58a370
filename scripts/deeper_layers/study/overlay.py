"""What of the default study counts in another one that is laid over it (``snakemake --configfile FILE``).

Snakemake merges the two, key by key. That serves a variation of the default study; a real model would be
healed and measured on the default study's invented world wherever its own file forgets a text, a recipe, or
a key of a suite of the same name. So a study of models of its own stands alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from ..errors import UserError
from .schema import MissingError, check_schema


def stands_alone(merged: Mapping, own: Mapping) -> bool:
    """Whether a study has models that its ``own`` file defines and that are not trained here."""
    defined = own.get("models", {})
    sources = [defined.get(name, {}).get("source", "pretrain") for name in merged["study"]["models"]]
    return any(source != "pretrain" for source in sources)


def effective(merged: dict, own: Mapping, schema: dict, name: str) -> dict:
    """The configuration that counts: ``merged``, or ``own`` alone where it stands alone.

    ``own`` is what was given beside config.yaml, ``name`` a folder's name for its results. Raises UserError
    for what the schema does not allow, and for a study that stands alone without an outdir.
    """
    check_schema(merged, schema)
    if not stands_alone(merged, own):
        return merged
    try:
        check_schema(dict(own), schema)
    except MissingError as error:
        raise MissingError(f"{error} {ALONE}") from None
    if "outdir" not in own:
        raise UserError(
            "outdir: this study of models of its own names none, and results is the default study's; write "
            f"outdir: results/{name}"
        )
    return copy.deepcopy(dict(own))


ALONE = "(a study of models of its own takes nothing from config.yaml)"
