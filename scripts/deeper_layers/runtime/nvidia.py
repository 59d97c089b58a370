"""The NVIDIA cards of a machine, as its driver lists them, without torch: this must precede CUDA.

nvidia-smi is asked; where there is none, or it fails, the library beneath it (NVML); and last the kernel's
list, which knows neither the parts of a split card (MIG) nor what is in use.
"""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC, NVML = Path("/proc/driver/nvidia"), "libnvidia-ml.so.1"
EXCLUSIVE, PROHIBITED = 3, 2  # NVML's numbers of compute modes


@dataclass(frozen=True)
class Card:
    """A GPU or, of one that is split, a part (MIG).

    ``name`` is its UUID; ``card`` and ``number`` are the UUID of the whole card and its place in the driver's
    list. ``used_mb`` of its memory are taken and ``processes`` compute on it, whoever's they are, and
    ``exclusive`` says that it admits one process at a time: 0 and False where that is not known.
    """

    name: str
    card: str
    number: int
    used_mb: int = 0
    processes: int = 0
    exclusive: bool = False


def machine_cards() -> list[Card]:
    """All cards that may compute, in the driver's order; empty where nothing knows of any."""
    return _from_nvidia_smi() or _from_nvml() or _from_kernel()


@functools.cache
def driver_version() -> str | None:
    """Of NVIDIA's driver, as 535.104.05; None where nothing tells."""
    text = ""
    with suppress(OSError):
        text = (PROC / "version").read_text()
    text = text or _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found and found[0]


def _nvidia_smi(*options: str) -> str:
    """What nvidia-smi prints; nothing if there is none, or it fails."""
    try:
        return subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _from_nvidia_smi() -> list[Card]:
    listed = re.findall(
        r"^(?:GPU (\d+):|\s+MIG ).*\(UUID: ((?:GPU|MIG)-[^)]+)\)", _nvidia_smi("-L"), re.MULTILINE
    )
    if not listed:
        return []
    form = "--format=csv,noheader,nounits"
    table = _nvidia_smi("--query-gpu=uuid,memory.used,compute_mode", form)
    about = {
        line.split(", ")[0]: line.split(", ")[1:] for line in table.splitlines() if line.count(", ") == 2
    }
    processes = Counter(_nvidia_smi("--query-compute-apps=gpu_uuid", form).split())
    cards: list[Card] = []
    for number, name in listed:
        if not number:  # a part of the card before it, which cannot be used whole
            whole = cards[-1] if cards[-1].name != cards[-1].card else cards.pop()
            cards.append(Card(name, whole.card, whole.number))
            continue
        used, mode = about.get(name, ("", ""))
        used_mb = int(used) if used.isdigit() else 0
        cards.append(Card(name, name, int(number), used_mb, processes[name], mode == "Exclusive_Process"))
    prohibited = {uuid for uuid, (_, mode) in about.items() if mode == "Prohibited"}
    return [card for card in cards if card.card not in prohibited]


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def _from_nvml() -> list[Card]:
    """Asked where nvidia-smi is not installed, or not on the PATH, as on WSL."""
    with suppress(OSError, AttributeError):  # no library, or one from before these functions
        nvml = ctypes.CDLL(NVML)
        if nvml.nvmlInit_v2() == 0:
            try:
                count = _number(nvml.nvmlDeviceGetCount_v2)
                return [card for number in range(count) for card in _nvml(nvml, number)]
            finally:
                nvml.nvmlShutdown()
    return []


def _nvml(nvml: ctypes.CDLL, number: int) -> Iterator[Card]:
    """The card at a place in the list, or its parts."""
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
        return
    mode = _number(nvml.nvmlDeviceGetComputeMode, handle)
    if mode == PROHIBITED:
        return
    parts = []
    for i in range(_number(nvml.nvmlDeviceGetMaxMigDeviceCount, handle)):
        part = ctypes.c_void_p()
        if not nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i, ctypes.byref(part)):
            parts.append(part)
    whole = _uuid(nvml, handle)
    for one in parts or [handle]:
        memory, count = _Memory(), ctypes.c_uint(0)
        nvml.nvmlDeviceGetMemoryInfo(one, ctypes.byref(memory))
        # With no room for a list it only counts.
        nvml.nvmlDeviceGetComputeRunningProcesses_v3(one, ctypes.byref(count), None)
        used_mb = memory.used // 2**20
        yield Card(_uuid(nvml, one), whole, number, used_mb, count.value, mode == EXCLUSIVE)


def _number(ask: Callable, *arguments: object) -> int:
    """The number that a function of NVML writes to its last argument; 0 if it fails."""
    answer = ctypes.c_uint(0)
    return 0 if ask(*arguments, ctypes.byref(answer)) else answer.value


def _uuid(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> str:
    text = ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetUUID(handle, text, len(text))
    return text.value.decode()


def _from_kernel() -> list[Card]:
    """Of containers without NVIDIA's tools. The folders are named by PCI address, which gives the order."""
    texts = []
    for path in sorted(PROC.glob("gpus/*/information")):
        with suppress(OSError):
            texts.append(path.read_text())
    names = [
        found[1] for text in texts if (found := re.search(r"^GPU UUID:\s*(GPU-\S+)", text, re.MULTILINE))
    ]
    return [Card(name, name, number) for number, name in enumerate(names)]
