"""Remove the layers of a language model that change its residual stream least, heal the cut, and
measure what is lost: the library behind the Snakemake workflow of the same name.

Implements "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887). No module
imports torch or transformers unless it works on tensors, so that small stages start at once.
"""

__version__ = "0.1.0"
