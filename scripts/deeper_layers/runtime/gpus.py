"""One GPU for each job, on a machine with several: Snakemake counts GPUs but assigns none.

A job claims a card that no other job holds, by a lock that the kernel drops when the process ends, however
it ends. NVIDIA cards only.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..errors import UserError
from .files import lock
from .nvidia import Card, machine_cards

# A scheduler may give two of its jobs one card on purpose, and numbers of cards that nobody lists are the
# job's own: its id is a part of each lock.
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")

_claimed: dict[str, IO] = {}  # by name; open, and so locked, as long as this process lives


def use(gpus: str, say: Callable[[str], None] = print) -> None:
    """Let CUDA see what ``--gpus`` says: ``1`` a free card, ``0`` none, ``auto`` a card where there is one.
    Raises UserError for 1 on a machine without."""
    if gpus == "0":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif claim(say) is None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = "on this machine" if hidden is None else f"among CUDA_VISIBLE_DEVICES={hidden!r}"
        if gpus == "1":
            raise UserError(
                f"a GPU is asked for, and there is no NVIDIA card {where}: see what nvidia-smi -L lists, or "
                "compute on the CPU with gpus: 0 for this model (--gpus 0)"
            )
        say(f"no GPU found {where}: computing on the CPU")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # one that only torch knows of would be used without a lock


def claim(say: Callable[[str], None] = print, interval: float = 1.0) -> str | None:
    """Hold a free GPU until this process ends and let CUDA see only that one; returns its name.

    The choice is among those of CUDA_VISIBLE_DEVICES (numbers or UUIDs) if it is set, else all of the
    machine, those first on which least is going on; None without any. While all are taken, wait, looking
    every ``interval`` seconds. Must precede the first use of CUDA. ``say`` tells the user what happens.
    """
    cards, waiting = visible(), False
    while cards:
        for card in sorted(cards, key=lambda card: (card.processes, card.used_mb // 1000)):
            if card.exclusive and card.processes:
                continue
            if held := lock(lock_path(card.name), wait=False):
                _claimed[card.name] = held
                os.environ["CUDA_VISIBLE_DEVICES"] = card.name
                say(f"using GPU {card.name}")
                return card.name
        if not waiting:
            say(f"waiting for one of {len(cards)} GPUs: other jobs hold them")
        waiting = True
        time.sleep(interval)
        if any(card.exclusive for card in cards):  # are they still busy?
            cards = visible() or cards
    return None


def claimed() -> str | None:
    """The name of the card that this process holds."""
    return next(iter(_claimed), None)


def visible() -> list[Card]:
    """The GPUs that this process may use.

    Numbers in CUDA_VISIBLE_DEVICES are the driver's, as nvidia-smi gives them, and UUIDs may be shortened, as
    CUDA allows. A split card stands for its parts. Where nobody lists cards, those named are taken as named.
    """
    cards, named = machine_cards(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return cards
    found: dict[str, Card] = {}
    for name in (name.strip() for name in named.split(",")):
        meant = [card for card in cards if _is(card, name)] if cards else _unlisted(name)
        if not meant:  # CUDA ignores what follows the first name that is none, -1 for example
            break
        found |= {card.name: card for card in meant}
    return list(found.values())


def _is(card: Card, name: str) -> bool:
    if name.isdigit():
        return card.number == int(name)
    return name[:4] in ("GPU-", "MIG-") and (card.name.startswith(name) or card.card.startswith(name))


def _unlisted(name: str) -> list[Card]:
    return [Card(name, name, 0)] if re.fullmatch(r"\d+|(GPU|MIG)-.+", name) else []


def lock_path(name: str) -> Path:
    """The file whose lock stands for a GPU; one folder for each user."""
    job = next((os.environ[key] for key in SCHEDULERS if os.environ.get(key)), "machine")
    folder = Path(tempfile.gettempdir()) / f"deeper-layers-{os.getuid()}"
    return folder / f"gpu-{job}-{name}.lock".replace("/", "_")
