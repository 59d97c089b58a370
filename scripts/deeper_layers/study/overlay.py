"""What of the default study counts in another one that is laid over it (``snakemake --configfile FILE``).

Snakemake merges the two, key by key. That serves a variation of the default study; a real model would be
healed and measured on the default study's invented world wherever its own file forgets a text, a recipe, or
a key of a suite of the same name. So a study of models of its own stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import UserError
from ..settings.json_schema import with_defaults
from .schema import MissingError, check_schema


def stands_alone(merged: Mapping, own: Mapping) -> bool:
    """Whether a study has models that its ``own`` file defines and that are not trained here."""
    defined = own.get("models", {})
    sources = [defined.get(name, {}).get("source", "pretrain") for name in merged["study"]["models"]]
    return any(source != "pretrain" for source in sources)


def effective(merged: dict, own: Mapping, name: str) -> dict:
    """The configuration that counts, its defaults filled in: ``merged``, or ``own`` where it stands alone.

    ``own`` is what was given beside config.yaml, ``name`` a folder's name for its results. Raises UserError
    for what the schema does not allow, and for a study that stands alone without an outdir.
    """
    check_schema(merged)
    if not stands_alone(merged, own):
        return with_defaults(merged)
    try:
        check_schema(dict(own))
    except MissingError as error:
        raise MissingError(f"{error} {ALONE}") from None
    if "outdir" not in own:
        raise UserError(
            "outdir: this study of models of its own names none, and results is the default study's; write "
            f"outdir: results/{name}"
        )
    return with_defaults(own)


ALONE = "(a study of models of its own takes nothing from config.yaml)"
