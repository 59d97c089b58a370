"""What a person reads while Snakemake runs: a line when a job starts, one when it ends, what jobs say in
between, and of a job that failed its name, its log file and the last lines of it. Snakemake's own log file,
in .snakemake/log, has all the rest.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, logger
from snakemake_interface_logger_plugins.common import LogEvent

from .cli import LOGS_ARE_SHOWN
from .progress import clock

LAST_LINES = 30  # of the log of a job that failed

# What Snakemake says at every start and between jobs; whatever else it says is shown.
NOISE = re.compile(
    r"""Building\ DAG | Using\ shell | Select\ jobs | Updating\ checkpoint | DAG\ of\ jobs\ will
    | (Conda|Singularity|Group).*:\ (ignored|inactive) | Shutting\ down | This\ was\ a\ dry-run
    | The\ run\ involves\ checkpoint | Reasons: | Some\ jobs\ were\ triggered | Rules\ with | \d+\ jobs\ have
    | WorkflowError:\nAt\ least\ one\ job""",
    re.VERBOSE,
)
UNWANTED = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.SHELLCMD,
    LogEvent.RULEGRAPH,
}


class Terminal(ColorizingTextHandler):
    """Snakemake's handler of the terminal, in our words.

    ``dry_run()`` tells whether jobs are only listed, ``follow(stats)`` what to say of jobs that are not in
    the graph yet, given the number of jobs of each rule. ``commands``: show the commands of jobs too.
    """

    def __init__(
        self,
        dry_run: Callable[[], bool],
        follow: Callable[[dict], str],
        commands: bool = False,
        **handler: Any,
    ):
        super().__init__(**handler)
        self.dry_run, self.follow, self.commands = dry_run, follow, commands
        self.names: dict[int, str] = {}  # of jobs, by number
        self.started: dict[int, float] = {}
        self.finished: list[int] = []  # since the last count
        self.stats: dict | None = None

    def emit(self, record: LogRecord) -> None:
        try:
            with self._output_lock:
                if text := self.words(record):
                    self.stream.write(f"{self.decorate(record, text)}\n")
                    self.flush()
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def words(self, record: LogRecord) -> str:
        """What to say of a record; nothing if it is empty."""
        event: Any = getattr(record, "event", None)
        tell = {
            LogEvent.RUN_INFO: self._run,
            LogEvent.JOB_INFO: self._start,
            LogEvent.JOB_FINISHED: self._finish,
            LogEvent.PROGRESS: self._count,
            LogEvent.JOB_ERROR: self._failure,
        }.get(event)
        if tell:
            return tell(record)
        text = self.format(record)
        if event is LogEvent.SHELLCMD and self.commands:
            return text
        if event in UNWANTED or NOISE.match(text) or "returned non-zero exit status" in text:
            return ""
        if again := re.match(r"Trying to restart job (\d+)", text):
            return f"{_now()}  trying again: {self.message_of(int(again[1]))}"
        return text

    def _run(self, record: Any) -> str:
        """The jobs: by rule if they are only listed, else how many."""
        if self.stats == record.stats:
            return ""  # a dry run tells it again at its end
        self.stats = record.stats
        text = record.msg if self.dry_run() else _to_do(record.stats["total"])
        return "\n".join(filter(None, [text.rstrip(), self.follow(record.stats)])) + "\n"

    def _start(self, record: Any) -> str:
        self.names[record.jobid] = record.rule_msg or record.rule_name
        self.started[record.jobid] = time.monotonic()
        if not record.rule_msg:
            return ""  # a target: all, figures
        if self.dry_run():
            # Why, in short: each reason without its files.
            reasons = dict.fromkeys(part.split(":")[0].strip().lower() for part in record.reason.split(";"))
            return f"{record.rule_msg} ({', '.join(reasons)})"
        return f"{_now()}  start: {record.rule_msg}"

    def _finish(self, record: Any) -> str:
        self.finished.append(record.job_id)
        return ""

    def _count(self, record: Any) -> str:
        finished, self.finished = self.finished, []
        now = time.monotonic()
        lines = [
            f"{_now()}  {record.done}/{record.total} done: {self.message_of(job)} "
            f"({clock(now - self.started.get(job, now))})"
            for job in finished
        ]
        return "\n".join(lines)

    def _failure(self, record: Any) -> str:
        lines = [f"{_now()}  FAILED: {self.message_of(record.jobid)} (rule {record.rule_name})"]
        lines += [f"    {record.rule_msg}"] if record.rule_msg else []
        lines += [f"    {name}: {value}" for name, value in record.aux.items()]
        said = [_last_lines(log) for log in map(str, record.log)]
        if not any(said) and record.shellcmd:
            lines += [f"    command: {record.shellcmd}"]
        for log, last in zip(record.log, said, strict=True):
            lines += [f"    {log}, which ends with:" if last else f"    {log} is empty"]
            lines += [f"        {line}" for line in last]
        return "\n".join(lines)

    def message_of(self, job: int) -> str:
        return self.names.get(job, f"job {job}")


def _to_do(jobs: int) -> str:
    return f"{jobs} job{'s' if jobs != 1 else ''} to do."


def _now() -> str:
    return time.strftime("%a %H:%M:%S")


def _last_lines(path: str) -> list[str]:
    """Of a log file that Snakemake names, with what it says of the file after the name."""
    file = Path(path.split(" (")[0])
    if not file.is_file():
        return []
    with open(file, "rb") as log:
        log.seek(max(0, file.stat().st_size - 20_000))
        return log.read().decode(errors="replace").splitlines()[-LAST_LINES:]


def install(workflow: Any, follow: Callable[[dict], str]) -> None:
    """Let the terminal of a workflow be a ``Terminal``; its log file stays Snakemake's. Not where everything
    is asked for (--verbose), nor in place of a logger plugin. ``follow``: as for Terminal."""
    settings = workflow.output_settings
    if not workflow.is_main_process or settings.verbose or settings.debug_dag:
        return
    for handler in list(logger.handlers):
        if handler.name != "DefaultStreamHandler":
            continue
        terminal = Terminal(
            lambda: workflow.dryrun,
            follow,
            settings.printshellcmds,
            nocolor=settings.nocolor,
            stream=handler.stream,
            formatter=handler.formatter,
        )
        terminal.name = handler.name
        for known in handler.filters:
            terminal.addFilter(known)
        logger.removeHandler(handler)
        logger.addHandler(terminal)
        os.environ[LOGS_ARE_SHOWN] = "1"
