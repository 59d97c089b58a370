"""Whether a model can do what is asked of it, as far as its config.json tells: its kind, its length, how it
is quantised. On the plain JSON, without torch or transformers, so that the Snakefile can ask.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..runtime.files import read_json
from .config_keys import POSITIONS, decoder_part
from .model_types import ENCODERS, FIXED_POSITIONS
from .quantised import Asked, check_quantised

_OTHER_TASK = re.compile(
    r"For(Masked\w+|\w*Classification|QuestionAnswering|PreTraining|NextSentencePrediction|MultipleChoice"
    r"|CTC|Regression|Reward\w*)$"
)


def check(config: Mapping, name: str, asked: Asked, folder: str | Path | None = None) -> list[str]:
    """Warnings, a line each, about what is ``asked`` of the model ``name``, whose config.json in ``folder``
    holds ``config``. Raises UserError for what such a model cannot do."""
    check_kind(config, name)
    check_quantised(config, name, asked, folder)
    return check_lengths(config, name, asked.lengths)


def check_kind(config: Mapping, name: str) -> None:
    """Raise UserError unless this may be a decoder-only language model."""
    kind = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise UserError(f"{name}: model type {kind!r} has an encoder; only decoder-only models are cut")
    classes = config.get("architectures") or []
    classes = [c for c in classes if isinstance(c, str)] if isinstance(classes, list) else []
    other = next((c for c in classes if _OTHER_TASK.search(c)), None)
    if (kind in ENCODERS and not config.get("is_decoder")) or other:
        raise UserError(
            f"{name}: its config.json says {other or kind}, which is no causal language model; give a model "
            "that writes text, one whose class ends with ForCausalLM"
        )


# Lengths


def positions(config: Mapping) -> tuple[int | None, bool]:
    """The number of positions that a model was made for, None if it is not said, and whether it has no
    others (learned or tabulated ones)."""
    config = decoder_part(config)
    kind = config.get("model_type", "")
    fixed = kind in FIXED_POSITIONS
    found = [config[n] for n in POSITIONS if type(config.get(n)) is int and config[n] > 0]
    if fixed:
        return (found[0] if found else FIXED_POSITIONS[kind]), True
    if kind == "bloom" or (kind == "falcon" and config.get("alibi")) or not found:
        return None, False
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if isinstance(factor, int | float) and isinstance(original, int):
        return max(found[0], int(factor * original)), False
    return found[0], False


def check_lengths(config: Mapping, name: str, lengths: Mapping[str, int]) -> list[str]:
    """A warning for each of ``lengths`` (setting -> tokens) beyond what the model was trained on; UserError
    where it has no positions so far out."""
    limit, fixed = positions(config)
    warnings = []
    for where, length in lengths.items():
        if limit is None or length <= limit:
            continue
        if fixed:
            raise UserError(
                f"{where}: {length} tokens are more than the {limit} positions of {name}, and a "
                f"{config.get('model_type')} model has no others; write at most {limit}"
            )
        warnings.append(
            f"{where}: {length} tokens are more than the {limit} positions that {name} was made for; what it "
            "says of later ones may mean little"
        )
    return warnings


# A program


def check_arguments(arguments: Namespace, lengths: Mapping[str, int]) -> None:
    """``check`` of a program's ``--checkpoint`` against its ``lengths``, ``--precision`` and ``--stream``;
    warnings go to the log. What has no config.json is left to those who load it."""
    path = arguments.checkpoint / "config.json"
    if not path.is_file():
        return
    streamed = ["--stream"] if getattr(arguments, "stream", False) else []
    lengths = {where: length for where, length in lengths.items() if length is not None}
    asked = Asked(lengths, {"--precision": arguments.precision}, streamed)
    for line in check(read_json(path), str(arguments.checkpoint), asked, arguments.checkpoint):
        print(f"warning: {line}", flush=True)
