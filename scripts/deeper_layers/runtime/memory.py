"""When memory runs out: how libraries say so, and what can be given back."""

from __future__ import annotations

import errno
import gc
import re

import torch

# Of a RuntimeError. cuBLAS and cuDNN have words of their own, and fail to start, when a card is nearly full:
# accelerate's should_reduce_batch_size knows none of that.
WORDS = re.compile(
    r"out of memory"  # torch's allocator, "CUDA error: out of memory" of the driver, HIP, XPU, MPS, Triton
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT|HIPBLAS|MIOPEN)_\w*ALLOC(ATION)?_?FAILED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED"
    r"|cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"
    r"|(can't allocate|not enough) memory: you tried to allocate"  # torch on a CPU
    r"|cannot allocate memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or what it was raised from, says that a GPU or the machine has no memory left: the
    same computation in smaller parts may succeed."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and WORDS.search(str(error)):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        error = error.__cause__
    return False


def free_memory() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
