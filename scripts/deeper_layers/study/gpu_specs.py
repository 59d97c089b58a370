"""What the makers' data sheets say of GPUs, by the names that the key ``card`` of the configuration takes,
and what benchmarks/gpu.py has measured of one (``resources/gpus/CARD.json``)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..resources import RESOURCES

# Of an A100's peak, what a 7B model reaches: by forward passes over long batches, and by QLoRA (2,341 to
# 3,413 tokens a second in the tables of Qwen and LLaMA-Factory, at 6 operations for each weight and token).
SCORING, TRAINING = 0.50, 0.37
HOPPER = 0.8  # of these where the peak is harder to reach: H100, H200


@dataclass(frozen=True)
class GpuSpec:
    """Memory in MB, and the peak of floating-point operations per second in bf16, without sparsity; the parts
    of that which forward passes and training reach, if they were measured."""

    memory_mb: int
    peak_flops: float
    scoring: float | None = None
    training: float | None = None

    def reached(self, training: bool) -> float:
        """The part of the peak that forward passes reach, or ``training``."""
        if measured := self.training if training else self.scoring:
            return measured
        return (TRAINING if training else SCORING) * (HOPPER if self.peak_flops > 500e12 else 1)


def calibrated(name: str, spec: GpuSpec, folder: Path = RESOURCES / "gpus") -> GpuSpec:
    """``spec`` with what was measured of the card ``name``, if it was."""
    try:
        found = json.loads((folder / f"{name}.json").read_text())
        return replace(spec, scoring=float(found["scoring"]), training=float(found["training"]))
    except (OSError, ValueError, LookupError, TypeError):
        return spec


SPECS = {  # settings/study.py lists the names too
    "l4": GpuSpec(24_000, 121e12),
    "rtx-4090": GpuSpec(24_000, 165e12),
    "rtx-a6000": GpuSpec(48_000, 155e12),
    "l40s": GpuSpec(48_000, 362e12),
    "a100-40gb": GpuSpec(40_000, 312e12),
    "a100-80gb": GpuSpec(80_000, 312e12),
    "h100-80gb": GpuSpec(80_000, 989e12),
    "h200": GpuSpec(141_000, 989e12),
}
GPUS = {name: calibrated(name, spec) for name, spec in SPECS.items()}
