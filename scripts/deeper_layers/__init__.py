"""Remove the layers of a language model that change its residual stream least, heal the cut, and
measure what is lost: the library behind the Snakemake workflow of the same name.

Implements "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887). No module
imports torch or transformers unless it works on tensors, so that small stages start at once.
"""

import os

__version__ = "0.1.0"

# Threads of OpenMP that wait for work spin, and take the core from the one that has it. Where cores are
# shared with other work two threads were seen to train a small model 18 times slower than one, on a quiet
# machine no slower (benchmarks/threads.py). Read when torch is imported; a value of the user's own stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Batches differ in shape, and what torch keeps of one on a GPU seldom fits the next: it then frees and asks
# again, over and over, or runs out of memory early. Read when torch is imported; a user's own value stays.
if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
