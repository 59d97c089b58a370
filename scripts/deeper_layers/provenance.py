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

from . import __version__

# A process starts with the ru_maxrss of the one that made it; VmHWM, where there is one, is its own.
STATUS = Path("/proc/self/status")
PACKAGES = ["torch", "transformers", "peft", "bitsandbytes", "lm-eval", "datasets", "safetensors"]
_started = time.monotonic()
_recorded: dict = {}


def record(**facts) -> None:
    """Facts that a library function found out, for every later ``provenance`` of this process."""
    _recorded.update(facts)


def provenance(**facts) -> dict:
    """``facts`` of the caller and of ``record``, plus ``versions``, ``device``, ``seconds`` since the process
    started and ``peak_memory_bytes`` (resident, and ``peak_cuda_bytes`` where a GPU was used). Imports
    nothing heavy: the device is asked only of a torch that is already loaded."""
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
        out["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    return out


def peak_memory() -> int:
    """Most resident memory of this process so far, in bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
