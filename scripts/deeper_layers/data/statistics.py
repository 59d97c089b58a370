"""Means over tokens, and their standard errors."""

from __future__ import annotations

import numpy as np


def per_token(sums: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a token and its standard error, of each of K quantities, from their ``sums`` [N, K] or [N] over
    each sequence and its number of ``tokens`` [N].

    The mean is the ratio m = sum(sums) / sum(tokens). Tokens of one sequence are not independent, so the
    sequences are the sample. To first order m - E m = sum(r) / sum(tokens) with the residuals
    r = sums - m * tokens, whose mean is 0; their variance is estimated with N - 1 degrees of freedom:
    stderr = sqrt(N / (N - 1) * sum(r^2)) / sum(tokens) (ratio estimator; Cochran, Sampling Techniques,
    section 6.3), NaN for one sequence. For sequences of one length it is the usual standard error of their
    means.
    """
    n, total = len(tokens), tokens.sum()
    mean = sums.sum(0) / total
    residuals = sums - np.multiply.outer(tokens, mean)
    spread = n / (n - 1) if n > 1 else np.nan
    return mean, np.sqrt(spread * np.square(residuals).sum(0)) / total
