"""What the makers' data sheets say of GPUs, by the names that the key ``card`` of the configuration takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuSpec:
    """Memory in MB, and the peak of floating-point operations per second in bf16, without sparsity."""

    memory_mb: int
    peak_flops: float


GPUS = {  # settings/study.py lists the names too
    "l4": GpuSpec(24_000, 121e12),
    "rtx-4090": GpuSpec(24_000, 165e12),
    "rtx-a6000": GpuSpec(48_000, 155e12),
    "l40s": GpuSpec(48_000, 362e12),
    "a100-40gb": GpuSpec(40_000, 312e12),
    "a100-80gb": GpuSpec(80_000, 312e12),
    "h100-80gb": GpuSpec(80_000, 989e12),
    "h200": GpuSpec(141_000, 989e12),
}
