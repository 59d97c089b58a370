"""What a person sees of a running program: lines on the terminal and in the log, and how far it is."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_screen = sys.stderr  # where a person looks, even when the log takes stdout and stderr


def echo(text: str) -> None:
    """A line for the person who watches and for the log."""
    print(text, file=_screen, flush=True)
    to_log(text)


def to_log(text: str) -> None:
    """A line for the log alone, if there is one."""
    if _screen is not sys.stderr:
        print(text, flush=True)


def echo_once(text: str, log_is_shown: bool) -> None:
    """A line for the log and, unless someone shows the log anyway, for the person who watches."""
    to_log(text)
    if _screen is sys.stderr or not log_is_shown:
        to_screen(text)


def to_screen(text: str) -> None:
    """A line for the person who watches alone."""
    print(text, file=_screen, flush=True)


def log_to(path: Path) -> None:
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
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
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

    def __exit__(self, failed: object, *_: object) -> None:
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
        (echo if watched else to_log)(f"{self.what}: {self.done}/{self.total} {self.unit}s, {text}")


def track(items: Iterable[Any], what: str, total: int | None = None, unit: str = "sample") -> Iterator:
    """Iterate over ``items`` under a Progress."""
    total = len(items) if total is None else total  # type: ignore[arg-type]
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.update()


def clock(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
