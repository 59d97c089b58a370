"""Where a number came from: versions, device, seconds and peak memory, for every JSON we write."""

from __future__ import annotations

import platform
import re
import resource
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from .nvidia import driver_version

# A process starts with the ru_maxrss of the one that made it; VmHWM, where there is one, is its own.
STATUS = Path("/proc/self/status")
PACKAGES = [
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "lm-eval",
    "datasets",
    "safetensors",
    "accelerate",
]
PACKAGES += ["liger-kernel"]  # used if it is there
_started = time.monotonic()
_recorded: dict = {}


def record(**facts: object) -> None:
    """Facts that a library function found out, for every later ``provenance`` of this process."""
    _recorded.update(facts)


def provenance(**facts: object) -> dict:
    """``facts`` of the caller and of ``record``, plus ``versions``, ``device``, ``seconds`` since the process
    started and ``peak_memory_bytes`` (resident). Where a GPU was used also ``cuda`` (of torch), ``driver``,
    ``peak_cuda_bytes`` and ``alloc_retries``: how often memory was only found by freeing what torch had kept,
    which is slow. Imports nothing heavy: the device is asked only of a torch that is already loaded."""
    versions = {"deeper-layers": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    out = _recorded | facts
    out["versions"] = versions
    out["device"] = platform.machine()
    out["seconds"] = round(time.monotonic() - _started, 2)
    out["peak_memory_bytes"] = peak_memory()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        out["device"] = torch.cuda.get_device_name()
        out["cuda"], out["driver"] = torch.version.cuda, driver_version()
        out["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
        out["alloc_retries"] = torch.cuda.memory_stats().get("num_alloc_retries", 0)
    return out


def peak_memory() -> int:
    """Most resident memory of this process so far, in bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
