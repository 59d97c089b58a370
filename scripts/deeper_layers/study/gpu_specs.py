"""What the makers' data sheets say of GPUs, by the names that the key ``card`` of the configuration takes."""

from __future__ import annotations

from dataclasses import dataclass

# Of an A100's peak, what a 7B model reaches: by forward passes over long batches, and by QLoRA (2,341 to
# 3,413 tokens a second in the tables of Qwen and LLaMA-Factory, at 6 operations for each weight and token).
SCORING, TRAINING = 0.50, 0.37
HOPPER = 0.8  # of these where the peak is harder to reach: H100, H200


@dataclass(frozen=True)
class GpuSpec:
    """Memory in MB, and the peak of floating-point operations per second in bf16, without sparsity."""

    memory_mb: int
    peak_flops: float

    def reached(self, training: bool) -> float:
        """The part of the peak that forward passes reach, or ``training``."""
        return (TRAINING if training else SCORING) * (HOPPER if self.peak_flops > 500e12 else 1)


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
