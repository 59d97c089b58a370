"""What the benchmarks share: random models and texts, fair timing, processes that are measured, reports.

Nothing here imports torch before it is needed: a child starts with the peak memory of its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as deeper_layers does, for what is compared with it


@dataclass(frozen=True)
class Run:
    """A finished process: wall seconds, seconds of CPU, most resident memory in MB, what it printed."""

    seconds: float
    cpu: float
    peak_mb: float
    output: str


def run(*command: object) -> Run:
    """Run a command to its end. Fails loudly."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with status {process.returncode}:\n{text[-3000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def alternating(subjects: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list]:
    """Results of each subject, by name. The subjects take turns, in another order each time, so that what
    else the machine does falls on all of them. REPEATS in the environment overrides ``repeats``."""
    repeats = int(os.environ.get("REPEATS", repeats))
    names, results = list(subjects), {name: [] for name in subjects}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            results[name].append(subjects[name]())
    return results


def seconds_of(action: Callable[[], object]) -> Callable[[], float]:
    """``action``, timed."""

    def timed() -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return timed


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the turns of the ratio within a turn."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def target(what: str, value: float, limit: float, missed: str, at_least: bool = False) -> dict:
    """A figure beside its target; ``missed`` says what to read from a miss, and what would close it."""
    met = value >= limit if at_least else value <= limit
    sign = ">=" if at_least else "<="
    return {"what": what, "value": value, "target": f"{sign} {limit:g}", "met": met, "missed": missed}


def figure(what: str, value: float) -> dict:
    """A figure for which there is no target."""
    return {"what": what, "value": value, "target": "none", "met": True, "missed": ""}


def median_row(what: str, values: Sequence[float], **more) -> dict:
    """A line of a report's table: the median of ``values``, seconds, and their range."""
    middle = statistics.median(values)
    return {"what": what, "seconds": middle, "from": min(values), "to": max(values), **more}


def report(rows: list[dict], targets: list[dict], setting: str) -> None:
    """Print a benchmark's result as the last line, for bench.py."""
    print(json.dumps({"setting": setting, "rows": rows, "targets": targets}))


def program(
    main: Callable[[Path], None], shape: Mapping | None = None, job: Callable[..., None] | None = None
) -> None:
    """A benchmark's command line: ``main`` in the folder given by --folder (kept) or in a temporary one. Its
    children are the same file with other words: ``write FOLDER``, a Llama of ``shape``, and ``job``."""
    match sys.argv[1:]:
        case ["write", folder]:
            write_llama(Path(folder), **shape)
        case ["job", *words]:
            job(*words)
        case _:
            p = argparse.ArgumentParser()
            p.add_argument("--folder", type=Path, help="where to write; none: a temporary folder")
            if folder := p.parse_args().folder:
                folder.mkdir(parents=True, exist_ok=True)
                main(folder)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    main(Path(folder))


def llama_config(layers: int, width: int, ffn: int, heads: int, vocabulary: int, **more):
    from transformers import LlamaConfig

    return LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=ffn,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )


def write_llama(folder: Path, shard: str = "50GB", **shape) -> Path:
    """A Llama of random weights, fp32."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(llama_config(**shape)).save_pretrained(folder, max_shard_size=shard)
    return folder


def random_documents(count: int, shortest: int, longest: int, vocabulary: int) -> list:
    """Documents of random tokens; the logarithms of their lengths are spread evenly."""
    import numpy as np

    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest + 1), count)).astype(int)
    return [rng.integers(3, vocabulary, length) for length in lengths]


def threads() -> None:
    """One thread for each core."""
    import torch

    torch.set_num_threads(os.cpu_count())
