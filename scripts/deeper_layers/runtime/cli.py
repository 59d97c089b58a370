"""The command line of every program of ``scripts/``: its common options, a log file that is complete, and
errors in one line."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..settings.base import REQUIRED, Settings
from ..settings.model import Model
from . import gpus, imports, process
from .files import lock
from .progress import echo, echo_once, log_to, to_screen

# Faults of the machine, not of a program: told in one line, as bad input is.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

# Set in the environment of jobs by the one who shows the log of a job that failed: it is then told once.
LOGS_ARE_SHOWN = "DEEPER_LAYERS_LOGS_ARE_SHOWN"

_held: list[IO | None] = []  # locks of this process


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the options that every program has (``--log``). None can be shortened, so that
    a new option changes no command."""
    p = argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
    p.add_argument("--log", type=Path, help="Write everything to this file, only progress to the terminal.")
    return p


def add_paths(p: argparse.ArgumentParser, **meanings: str) -> None:
    """Add a required option for each path, with its meaning: ``add_paths(p, out="JSON to write.")``."""
    for name, meaning in meanings.items():
        p.add_argument(f"--{name}", type=Path, required=True, help=meaning)


def add_flags(p: argparse.ArgumentParser, **meanings: str) -> None:
    """Add an option without a value for each, with its meaning."""
    for name, meaning in meanings.items():
        p.add_argument("--" + name.replace("_", "-"), action="store_true", help=meaning)


def model_options(p: argparse.ArgumentParser) -> None:
    """Add the options of a program that runs a model: those of ``compute_options`` and ``trust_option``."""
    compute_options(p)
    trust_option(p)


def trust_option(p: argparse.ArgumentParser) -> None:
    """Add ``--trust-remote-code``."""
    add_settings(p, Model, "trust_remote_code")


def compute_options(p: argparse.ArgumentParser) -> None:
    """Add ``--threads`` and ``--gpus``, which ``run`` applies before any model is loaded."""
    p.add_argument("--threads", type=int, help="CPU threads. Default is what torch takes.")
    p.add_argument(
        "--gpus",
        choices=["0", "1", "auto"],
        default="auto",
        help="1, on a free GPU, or not at all; 0, on the CPU; auto, on a GPU if the machine has one.",
    )


def add_settings(p: argparse.ArgumentParser, settings: type[Settings], *names: str) -> None:
    """Add an option for each field of a class of settings, or for those of ``names``. Of all, ``run`` makes
    ``arguments.settings``, an object of that class."""
    if not names:
        p.set_defaults(settings=settings)
    for one in fields(settings):
        if not names or one.name in names:
            p.add_argument("--" + one.name.replace("_", "-"), **_option(one.default, one.metadata))


def _option(default: Any, setting: Mapping) -> dict:
    """What argparse is told of a setting."""
    option = {"help": setting["help"].replace("%", "%%")}
    if setting["kind"] is bool:
        return option | {"action": "store_true"}
    option["type"] = setting["kind"]
    if "none" in setting:
        option["type"] = partial(_value_or_none, setting["kind"], setting["none"])
    if "choices" in setting:
        option["choices"] = setting["choices"]
    if setting["several"]:
        option["nargs"] = "+"
    if default is REQUIRED:
        return option | {"required": True}
    return option | {"default": list(default) if isinstance(default, tuple) else default}


def _value_or_none(kind: type, none: str, text: str) -> Any:
    return None if text == none else kind(text)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of an option where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def run(
    main: Callable[[argparse.Namespace], None],
    p: argparse.ArgumentParser,
    block_imports: Callable[[argparse.Namespace], Iterable[str]] = lambda _: (),
    check: Callable[[argparse.Namespace], bool | None] = lambda _: None,
) -> None:
    """Parse the command line and call ``main(arguments)``, to which the packages ``block_imports(arguments)``
    are as if they were not installed. A UserError, a full disk or a folder that cannot be written to becomes
    one line and status 1.

    ``check(arguments)`` comes first, before a GPU is waited for. It raises UserError for what is cheaply
    found wrong, without torch, and returns False if ``main`` has nothing to compute and needs no card."""
    arguments = p.parse_args()
    imports.hasten()
    process.block_imports(block_imports(arguments))
    try:
        if arguments.log:
            _wait_for_turn(arguments.log)
            log_to(arguments.log)
        process.set_threads(getattr(arguments, "threads", None))
        read_settings(arguments)
        todo = check(arguments)
        if wanted := getattr(arguments, "gpus", None):
            gpus.use("0" if todo is False else wanted, echo)
        main(arguments)
    except UserError as error:
        _fail(str(error))
    except Exception as error:
        if (fault := machine_fault(error)) is None:
            raise
        _fail(fault)


def read_settings(arguments: argparse.Namespace) -> None:
    """Construct ``arguments.settings``. Raises UserError for settings that cannot be."""
    if settings := getattr(arguments, "settings", None):
        arguments.settings = settings.of(vars(arguments))


def machine_fault(error: BaseException | None) -> str | None:
    """One line about a fault of the machine (disk full, no permission) that led to ``error``, if one did."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            return f"cannot write {error.filename or 'a file'}: {error.strerror}"
        if "No space left on device" in str(error):  # safetensors has its own exception for it
            return f"cannot write a file: {os.strerror(errno.ENOSPC)}"
        error = error.__cause__ or error.__context__
    return None


def _fail(text: str) -> None:
    text = f"error: {text}"
    try:
        echo_once(text, log_is_shown=LOGS_ARE_SHOWN in os.environ)
    except OSError:  # a log on a full disk cannot be written either
        with suppress(OSError):
            to_screen(text)
    sys.exit(1)


def _wait_for_turn(log: Path) -> None:
    """Hold the lock of a log file from now on. A job whose Snakemake was killed lives on; the same job,
    started again, waits for it to end instead of writing the same files."""
    path = log.with_name(f".{log.name}.lock")
    if (held := lock(path, wait=False)) is None:
        echo(f"waiting for an earlier run of this job to end ({log})")
        held = lock(path)
    _held.append(held)
