"""What every command-line program of ``scripts/`` shares: a log file that is complete, progress for
the person who watches, and errors in one line."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import IO

from ..errors import UserError
from . import gpus as devices
from .files import lock

# Faults of the machine, not of a program: told in one line, as bad input is.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

# Set in the environment of jobs by the one who shows the log of a job that failed: it is then told once.
LOGS_ARE_SHOWN = "DEEPER_LAYERS_LOGS_ARE_SHOWN"

_held: list[IO] = []  # locks of this process
_screen = sys.stderr  # where a person looks, even when the log takes stdout and stderr


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the options that every program has (``--log``)."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--log", type=Path, help="write everything to this file, only progress to the terminal")
    return p


def compute_options(p: argparse.ArgumentParser) -> None:
    """Add ``--threads`` and ``--gpus``, which ``run`` applies before any model is loaded."""
    p.add_argument("--threads", type=int, help="CPU threads; none: torch decides")
    p.add_argument(
        "--gpus",
        choices=["0", "1", "auto"],
        default="auto",
        help="1: on a free GPU, or not at all; 0: on the CPU; auto: on a GPU if the machine has one",
    )


def add_settings(p: argparse.ArgumentParser, settings: type, *names: str) -> None:
    """Add an option for each field of a class of ``deeper_layers.settings``, or for ``names``."""
    for one in fields(settings):
        if names and one.name not in names:
            continue
        how = {"type": one.metadata["kind"], "default": one.default}
        if one.metadata["kind"] is bool:
            how = {"action": "store_true"}
        elif isinstance(one.default, tuple):
            how |= {"nargs": "+", "default": list(one.default)}
        if "choices" in one.metadata:
            how["choices"] = one.metadata["choices"]
        p.add_argument("--" + one.name.replace("_", "-"), help=one.metadata["help"], **how)


# What transformers, peft and accelerate import only because it is installed, which takes longer than most of
# what they import because they need it.
UNUSED = ("datasets", "pandas", "scipy", "sklearn")


def unused(arguments: argparse.Namespace, packages: Iterable[str] = UNUSED) -> list[str]:
    """Packages that a job on a model does without: ``packages``, and bitsandbytes but for 4 bits. None where
    the model brings code of its own, which may import anything."""
    if arguments.trust_remote_code:
        return []
    return [*packages, *(["bitsandbytes"] if arguments.precision != "nf4" else [])]


def run(
    main: Callable[[argparse.Namespace], None],
    p: argparse.ArgumentParser,
    without: Callable[[argparse.Namespace], Iterable[str]] = lambda _: (),
    check: Callable[[argparse.Namespace], bool | None] = lambda _: None,
) -> None:
    """Parse the command line and call ``main(arguments)``, to which the packages ``without(arguments)`` are
    as if they were not installed. A UserError, a full disk or a folder that cannot be written to becomes one
    line and status 1.

    ``check(arguments)`` comes first, before a GPU is waited for. It raises UserError for what is cheaply
    found wrong, without torch, and returns False if ``main`` has nothing to compute and needs no card."""
    arguments = p.parse_args()
    for package in without(arguments):
        sys.modules.setdefault(package, None)
    try:
        if arguments.log:
            _wait_for_turn(arguments.log)
            _log_to(arguments.log)
        if getattr(arguments, "threads", None):
            os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # read when torch is imported
        todo = check(arguments)
        if gpus := getattr(arguments, "gpus", None):
            devices.use("0" if todo is False else gpus, tell)
        main(arguments)
    except UserError as error:
        _fail(str(error))
    except Exception as error:
        if (fault := machine_fault(error)) is None:
            raise
        _fail(fault)


def machine_fault(error: BaseException | None) -> str | None:
    """One line about a fault of the machine (disk full, no permission) that led to ``error``, if one did."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            return f"cannot write {error.filename or 'a file'}: {error.strerror}"
        if "No space left on device" in str(error):  # safetensors has its own exception for it
            return f"cannot write a file: {os.strerror(errno.ENOSPC)}"
        error = error.__cause__ or error.__context__
    return None


def tell(text: str) -> None:
    """A line for the person who watches and for the log."""
    print(text, file=_screen, flush=True)
    to_log(text)


def to_log(text: str) -> None:
    """A line for the log alone, if there is one."""
    if _screen is not sys.stderr:
        print(text, flush=True)


def _fail(text: str) -> None:
    text = f"error: {text}"
    try:
        if _screen is not sys.stderr:
            print(text, flush=True)
        if _screen is sys.stderr or LOGS_ARE_SHOWN not in os.environ:
            print(text, file=_screen, flush=True)
    except OSError:  # a log on a full disk cannot be written either
        with suppress(OSError):
            print(text, file=_screen, flush=True)
    sys.exit(1)


def _wait_for_turn(log: Path) -> None:
    """Hold the lock of a log file from now on. A job whose Snakemake was killed lives on; the same job,
    started again, waits for it to end instead of writing the same files."""
    path = log.with_name(f".{log.name}.lock")
    if (held := lock(path, wait=False)) is None:
        tell(f"waiting for an earlier run of this job to end ({log})")
        held = lock(path)
    _held.append(held)


def _log_to(path: Path) -> None:
    """Send file descriptors 1 and 2 to ``path`` (libraries written in C included), the screen apart."""
    global _screen
    path.parent.mkdir(parents=True, exist_ok=True)
    _screen = os.fdopen(os.dup(2), "w", buffering=1)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout.reconfigure(line_buffering=True)
    print("$", shlex.join(sys.argv))


class Progress:
    """How far a long stage is and how long it will take: a bar on a terminal, else a line now and then, none
    for what takes less than ``every`` seconds.

    >>> with Progress("healing embedded drop_6-9", total=150, unit="step") as progress:
    ...     progress.update(1)
    """

    def __init__(self, what: str, total: int, unit: str = "sample", every: float = 10.0):
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.done, self.started, self._said = 0, time.monotonic(), time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first units were counted, and how many
        self.bar = None
        if _screen.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=what, unit=unit, file=_screen, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, failed, *_) -> None:
        if self.bar is not None:
            self.bar.close()
        elif not failed:
            took = time.monotonic() - self.started
            self._say(f"done in {clock(took)}", watched=took >= self.every)

    def update(self, step: int = 1, note: str = "") -> None:
        """Count ``step`` more units; ``note`` is a short extra, such as the loss.

        The time left follows from the pace since the first call: what came before it (loading, scoring all
        blocks for the first one) or was done by an earlier run says nothing of the rest.
        """
        self.done += step
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(step)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, self.done
            return
        since, before = self._first
        if now - self._said >= self.every and before < self.done < self.total:
            self._said = now
            left = (now - since) / (self.done - before) * (self.total - self.done)
            self._say(f"{100 * self.done / self.total:.0f} %, {clock(left)} left" + (note and f", {note}"))

    def _say(self, text: str, watched: bool = True) -> None:
        """To the log, and to the person who watches if that is worth a line."""
        (tell if watched else to_log)(f"{self.what}: {self.done}/{self.total} {self.unit}s, {text}")


def track(items: Iterable, what: str, total: int | None = None, unit: str = "sample") -> Iterator:
    """Iterate over ``items`` under a Progress."""
    with Progress(what, len(items) if total is None else total, unit) as progress:
        for item in items:
            yield item
            progress.update()


def clock(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
