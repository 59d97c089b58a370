"""Perplexity of a model, or of all cuts of one, on a text whose documents are put end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..checkpoints.decoder_config import text_config
from ..data.statistics import per_token
from ..errors import UserError
from ..pruning.layer_set import LayerSet
from .cut_scorer import CutScorer
from .inputs import Request
from .streamed_scorer import StreamedCutScorer


def windows(ids: np.ndarray, window: int, stride: int) -> Iterator[Request]:
    """The token sequence ``ids`` [T] in windows of at most ``window`` tokens, one every ``stride``: of each,
    what is only read, and what is predicted.

    A window predicts what none before it has, and never its own first token. With a stride of the window all
    are predicted but the first of each, as in most papers on pruning; with a smaller one each token has at
    least ``window - stride`` before it (the sliding window of the transformers documentation).
    """
    done = 0
    for start in range(0, len(ids), stride):
        end = min(start + window, len(ids))
        new = min(end - done, end - start - 1)
        if new > 0:
            yield ids[start : end - new].tolist(), ids[end - new : end].tolist()
        done = end
        if end == len(ids):
            return


def perplexities(
    scorer: CutScorer | StreamedCutScorer,
    ids: np.ndarray,
    window: int,
    stride: int,
    label: str,
    journal: Path | None = None,
) -> dict[LayerSet, dict]:
    """For each block of ``scorer`` the perplexity of ``ids`` [T] (see ``windows``), in the layout of
    lm-eval's results: ``{"results": {"perplexity": {...}}}``.

    It is exp(m) of the mean loss m of the predicted tokens, each of which counts the same. The sample are the
    windows: m has the standard error s of ``per_token``, and the perplexity to first order s exp(m).
    """
    requests = list(windows(ids, window, stride))
    if not requests:
        raise UserError("the held-out text has one token: nothing to predict")
    tokens = np.array([len(continuation) for _, continuation in requests])
    scores = scorer.loglikelihoods(requests, window - 1, label, journal)
    vocabulary = text_config(scorer.model.config).vocab_size
    return {
        block: _result(np.array([-log_likelihood for log_likelihood, _ in by_window]), tokens, vocabulary)
        for block, by_window in scores.items()
    }


def _result(nats: np.ndarray, tokens: np.ndarray, vocabulary: int) -> dict:
    loss, error = map(float, per_token(nats, tokens))
    perplexity = float(np.exp(loss))
    values = {
        "perplexity": perplexity,
        "perplexity_stderr": perplexity * error,
        "nats": loss,
        "nats_error": error,
        "tokens": int(tokens.sum()),
        "windows": len(tokens),
        "vocabulary": vocabulary,
    }
    return {"results": {"perplexity": values}}
